import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { planRun } from '../../src/train/plan.js';
import { LAYOUT_FLAGS, fixture, pretrain, temporaryFolder } from '../checkpoint/runs.js';
import { layoutConfig } from '../parity/run-fixture.js';
import { Running, waitFor } from '../job/launch/processes.js';
import { BIN, mbridge } from './mbridge.js';

const { folder: model, tokens, trajectory } = fixture;
const TEXT = 'What is measured need not be trained on. '.repeat(40).slice(0, 13 * trajectory.seq + 22);

interface Result {
  loss: number;
  perplexity: number;
  bits_per_byte?: number;
  tokens: number;
  tokens_per_s: number;
  arena_bytes: number;
}

/** The last line of `mbridge eval`. */
async function evaluate(args: readonly string[]): Promise<Result> {
  const log = ['--log-dir', join(temporaryFolder(), 'run')];
  const { exitCode, stdout, stderr } = await mbridge(['eval', ...args, '--device', 'cpu', '--json', ...log]);
  expect(exitCode, stderr).toBe(0);
  return JSON.parse(stdout.split('\n').at(-1)!) as Result;
}

function textFile(): string {
  const path = join(temporaryFolder(), 'valid.txt');
  writeFileSync(path, TEXT);
  return path;
}

test('the loss of a Hugging Face folder is the same on every layout, of exactly the tokens that there are', async () => {
  const text = [model, '--data', textFile(), 'model.seq_length=64'];
  const reference = await evaluate(text);
  expect(reference.tokens).toBe(TEXT.length - 1);
  expect(reference.perplexity).toBeCloseTo(Math.exp(reference.loss), 8);
  expect(reference.bits_per_byte).toBeCloseTo(reference.loss / Math.LN2, 8);
  const dp3 = ['--nproc', '3', 'train.micro_batch_size=2'];
  const layouts = [LAYOUT_FLAGS['tp2 pp2'], LAYOUT_FLAGS['pp2 vpp2'], LAYOUT_FLAGS['tp2 dp2'], dp3];
  for (const layout of layouts) {
    const { loss, tokens: counted } = await evaluate([...text, ...layout]);
    expect(Math.abs(loss / reference.loss - 1), layout.join(' ')).toBeLessThan(1e-6);
    expect(counted).toBe(reference.tokens);
  }
}, 60_000);

test('it is that of torch, in less memory than training takes', async () => {
  const args = [model, '--data', tokens, '--samples', String(trajectory.batch), `model.seq_length=${trajectory.seq}`];
  const { loss, tokens: counted, arena_bytes: arena, ...rest } = await evaluate(args);
  expect(Math.abs(loss / trajectory.steps[0]!.loss - 1)).toBeLessThan(1e-5);
  expect(counted).toBe(trajectory.batch * trajectory.seq);
  expect(rest).not.toHaveProperty('bits_per_byte');
  const config = layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, {});
  const planned = (trainable: boolean) => planRun(config, 1, 'cpu', { trainable }).ranks[0]!;
  expect(planned(false).bytes).toMatchObject({
    gradients: 0,
    optimizer: 0,
    parameters: planned(true).bytes.parameters,
  });
  expect(arena).toBeLessThan(planned(true).totalBytes / 2);
});

test('the loss of a checkpoint is what its run found after the last update', async () => {
  const folder = temporaryFolder();
  const [saves, text] = [join(folder, 'saves'), textFile()];
  const validation = { eval_interval: 2, sets: { text: { type: 'text', path: text } } };
  const args = ['--nproc', '2', 'train.train_iters=2', `checkpoint.save=${saves}`];
  const run = await pretrain({ folder, args, config: { validation } });
  const found = JSON.parse(run.stdout.split('\n').at(-1)!) as { validation: { text: Result } };
  for (const path of [saves, join(saves, 'step-00000002')]) {
    const { loss, tokens: counted } = await evaluate([path, '--data', text, '--nproc', '2', '--tp-size', '2']);
    expect(Math.abs(loss / found.validation.text.loss - 1)).toBeLessThan(1e-6);
    expect(counted).toBe(found.validation.text.tokens);
  }
}, 30_000);

test('Ctrl-C ends it between two batches, without a result', async () => {
  const args = ['eval', model, '--data', 'builtin:moby-dick', '--json', '--device', 'cpu'];
  const running = new Running([
    process.execPath,
    BIN,
    ...args,
    '--nproc',
    '2',
    '--log-dir',
    join(temporaryFolder(), 'run'),
  ]);
  await waitFor('its first batch', () => /tokens at a time/.exec(running.stderr) ?? undefined);
  running.child.kill('SIGINT');
  const { code, stdout } = await running.ended;
  expect(code).toBe(130);
  expect(JSON.parse(stdout.trim())).not.toHaveProperty('loss');
});

describe('what cannot be measured is one error', () => {
  test.each<[string, readonly string[], number, string]>([
    ['no model', ['nowhere', '--data', tokens], 7, 'error MB_CHECKPOINT_NONE: nowhere: does not exist'],
    ['a folder of other things', ['docs', '--data', tokens], 7, 'docs: holds no checkpoint, and no config.json'],
    ['no data', [model], 2, 'nothing to measure on'],
    ['no such data', [model, '--data', 'nowhere.txt'], 7, 'cannot read data file nowhere.txt'],
    [
      'an unknown type',
      [model, '--data', tokens, '--dataset-type', 'txt'],
      3,
      '--dataset-type dataset.type: expected one',
    ],
    [
      'tokens of another length',
      [model, '--data', tokens, 'model.seq_length=32'],
      7,
      '"input_ids" has 65 tokens, expected 33',
    ],
    [
      'less than is asked for',
      [model, '--data', tokens, 'model.seq_length=64', '--samples', '97'],
      7,
      '97 samples are to be evaluated, there are 96',
    ],
    ['a word too many', [model, 'more', '--data', tokens], 2, 'unexpected argument more'],
    [
      'a layout that does not fit',
      [model, '--data', tokens, '--tp-size', '2'],
      3,
      'tp 2 x pp 1 = 2 does not divide the 1 processes',
    ],
  ])('%s', async (_, args, status, message) => {
    const log = ['--log-dir', join(temporaryFolder(), 'run')];
    const { exitCode, stderr } = await mbridge(['eval', ...args, '--device', 'cpu', ...log]);
    expect(exitCode, stderr).toBe(status);
    expect(stderr).toContain(message);
    expect(stderr.match(/error/g)).toHaveLength(1);
  });
});

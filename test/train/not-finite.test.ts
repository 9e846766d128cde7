import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { stringify } from 'yaml';
import { temporaryFolder } from '../checkpoint/runs.js';
import { mbridge } from '../cli/mbridge.js';
import { loadFixture } from '../helpers/fixture.js';
import { fixtureConfig } from '../parity/run-fixture.js';
import { readOutputs } from '../helpers/outputs.js';

const fixture = loadFixture('qwen3-tied');

interface Run {
  code: number | undefined;
  steps: Record<string, unknown>[];
  result: Record<string, unknown>;
  stderr: string;
}

/** Trains the fixture's model on `lines` of data, one sample an update and replica, weights from `model`. */
async function train(lines: readonly string[], model: string, args: readonly string[]): Promise<Run> {
  const folder = temporaryFolder();
  const config = fixtureConfig(fixture) as Record<string, Record<string, unknown>>;
  config['dataset']!['path'] = join(folder, 'data.jsonl');
  config['checkpoint']!['pretrained_checkpoint'] = model;
  config['train'] = { train_iters: lines.length, global_batch_size: 1, micro_batch_size: 1 };
  config['scheduler'] = { lr_decay_style: 'constant' };
  writeFileSync(join(folder, 'data.jsonl'), lines.join(''));
  writeFileSync(join(folder, 'run.yaml'), stringify(config));
  const where = ['--config', join(folder, 'run.yaml'), '--log-dir', join(folder, 'run'), '--device', 'cpu', '--json'];
  const { exitCode, stdout, stderr } = await mbridge(['pretrain', ...where, ...args]);
  const events = readOutputs(stdout);
  const steps = events.filter(({ type }) => type === 'step');
  return { code: exitCode, steps, result: events.at(-1) ?? {}, stderr };
}

/** A sample of the fixture's length; `count` tells whether its last tokens count. */
function sample(count: boolean): string {
  const { seq } = fixture.trajectory;
  const input_ids = Array.from({ length: seq + 1 }, (_, i) => (i * 7) % 500);
  const loss_mask = input_ids.map((_, i) => (count && i > seq / 2 ? 1 : 0));
  return `${JSON.stringify({ input_ids, loss_mask })}\n`;
}

const [yes, no] = [sample(true), sample(false)];

test('updates without a counted token are skipped, and end no sound run', async () => {
  const { code, steps, result, stderr } = await train([yes, no, yes, no, no, no, no], fixture.folder, ['--nproc', '1']);
  expect(code, stderr).toBe(0);
  expect(steps.map(({ skipped, tokens }) => [skipped === true, tokens === 0])).toEqual(
    [false, true, false, true, true, true, true].map((skipped) => [skipped, skipped]),
  );
  expect(result).toMatchObject({ ok: true, loss: steps[2]!['loss'] });
});

test.each([
  ['from the first updates on', [no, no, no, yes], 3],
  ['in a run that is shorter than the limit', [no], 1],
])('data in which no token counts is named as that: %s', async (_, lines, updates) => {
  const { code, result, steps } = await train(lines, fixture.folder, ['--nproc', '2', '--tp-size', '2']);
  expect(code).toBe(7);
  expect(steps).toHaveLength(updates);
  expect(result).toMatchObject({ exit_code: 7, error: { code: 'MB_NO_COUNTED_TOKENS', hint: /loss_mask/ } });
});

test.each([
  ['--nproc', '1'],
  ['--nproc', '2', '--tp-size', '2'],
  ['--nproc', '2', '--pp-size', '2'],
])('weights that hold NaN are named as the cause, not the training: %j %j %j %j', async (...args) => {
  const broken = join(temporaryFolder(), 'model');
  mkdirSync(broken);
  cpSync(fixture.folder, broken, { recursive: true });
  const file = join(broken, 'model.safetensors');
  const bytes = readFileSync(file);
  const header = Number(bytes.readBigUInt64LE(0));
  const tensors = JSON.parse(bytes.toString('utf8', 8, 8 + header)) as Record<string, { data_offsets: number[] }>;
  const at = tensors['model.layers.0.mlp.up_proj.weight']!.data_offsets[0]!;
  bytes.fill(0xff, 8 + header + at, 8 + header + at + 4); // NaN in every float format
  writeFileSync(file, bytes);
  const { code, result } = await train([yes, yes, yes, yes], broken, args);
  expect(code).toBe(7);
  expect(result).toMatchObject({
    error: { code: 'MB_WEIGHTS_NAN', message: /NaN.* 3 updates in a row, the last is 3/ },
  });
});

test.each([
  ['a learning rate that is too high', ['optimizer.lr=1e30', 'optimizer.min_lr=0'], /MB_DIVERGED|MB_GRADIENT_OVERFLOW/],
])('divergence has its own exit code: %s', async (_, set, code) => {
  const outcome = await train(Array<string>(6).fill(yes), fixture.folder, ['--nproc', '1', ...set]);
  expect(outcome.code).toBe(8);
  expect((outcome.result['error'] as { code: string }).code).toMatch(code);
});

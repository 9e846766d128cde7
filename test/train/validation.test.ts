import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { EvaluationEvent } from '../../src/job/shared/messages.js';
import { expectSameTensors, fixture, LAYOUT_FLAGS, pretrain, stepsOf, temporaryFolder } from '../checkpoint/runs.js';

const { tokens, trajectory } = fixture;
const SEQ = trajectory.seq;
/** No multiple of the sequence, and of no batch: 14 samples, the last of 21 tokens. */
const TEXT = 'What is measured need not be trained on. '.repeat(40).slice(0, 13 * SEQ + 22);

/** But for those of the launcher, which say where the run is and what it saved. */
function events(stdout: string): Record<string, unknown>[] {
  const all = stdout.split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
  return all.filter(({ type }) => type !== 'start' && type !== 'saved');
}

function evaluations(stdout: string): EvaluationEvent[] {
  return events(stdout).filter(({ type }) => type === 'evaluation') as unknown as EvaluationEvent[];
}

/** Trains two updates on the fixture, with two sets. */
async function validated(args: readonly string[], validation: Record<string, unknown> = {}) {
  const folder = temporaryFolder();
  const text = join(folder, 'valid.txt');
  writeFileSync(text, TEXT);
  const sets = { text: { type: 'text', path: text }, ids: { type: 'jsonl', path: tokens, shuffle: false } };
  const config = { validation: { eval_interval: 1, sets, ...validation } };
  const run = await pretrain({ folder, args: ['train.train_iters=2', ...args], config });
  return { ...run, folder };
}

describe('the loss on other data', () => {
  const LAYOUTS: [string, readonly string[]][] = [
    ['tp 2', ['--nproc', '2', '--tp-size', '2']],
    ['pp 2', ['--nproc', '2', '--pp-size', '2']],
    ['pp 2, interleaved', LAYOUT_FLAGS['pp2 vpp2']],
    ['dp 2', ['--nproc', '2']],
    ['tp 2, pp 2', LAYOUT_FLAGS['tp2 pp2']],
    ['dp 2, two samples a micro-batch', ['--nproc', '2', 'train.micro_batch_size=2']],
  ];

  test('is the same on every layout, of exactly the tokens that there are', { timeout: 120_000 }, async () => {
    const reference = await validated(['--nproc', '1'], { eval_at_start: true });
    expect(reference.exitCode, reference.stderr).toBe(0);
    const first = evaluations(reference.stdout);
    const samples = readFileSync(tokens, 'utf8').trim().split('\n').length;
    expect(first.map(({ step, set, tokens: counted }) => [step, set, counted])).toEqual(
      [0, 1, 2].flatMap((step) => [
        [step, 'text', TEXT.length - 1],
        [step, 'ids', samples * SEQ],
      ]),
    );
    for (const [name, args] of LAYOUTS) {
      const run = await validated(args, { eval_at_start: true });
      expect(run.exitCode, run.stderr).toBe(0);
      const found = evaluations(run.stdout);
      expect(found.length, name).toBe(first.length);
      found.forEach(({ loss, tokens: counted, step }, i) => {
        // After an update the weights themselves differ by their rounding.
        expect(Math.abs(loss / first[i]!.loss - 1), `${name}, update ${step}`).toBeLessThan(step === 0 ? 1e-6 : 1e-5);
        expect(counted, name).toBe(first[i]!.tokens);
      });
    }
  });

  test('is that of torch, with what follows from it', async () => {
    const { stdout, stderr, folder } = await validated(['--nproc', '1'], { eval_at_start: true, eval_iters: 1 });
    const [text, ids] = evaluations(stdout) as [EvaluationEvent, EvaluationEvent];
    // The first update of the trajectory has the same samples.
    expect(Math.abs(ids.loss / trajectory.steps[0]!.loss - 1)).toBeLessThan(1e-5);
    expect(ids.tokens).toBe(trajectory.batch * SEQ);
    expect(ids.perplexity).toBeCloseTo(Math.exp(ids.loss), 8);
    // Token ids do not say how many bytes they are; of a text each token is one.
    expect(ids).not.toHaveProperty('bits_per_byte');
    expect(stderr).toContain(`${tokens}: 96 samples of 64 tokens; no bits per byte`);
    expect(text.bits_per_byte).toBeCloseTo(text.loss / Math.LN2, 8);
    const all = events(stdout);
    expect(all.at(-1)).toMatchObject({
      ...{ type: 'result', ok: true, steps: 2 },
      validation: { text: { step: 2, tokens: trajectory.batch * SEQ }, ids: { step: 2, tokens: ids.tokens } },
    });
    // An evaluation stands below the update that it follows, in the run's folder too.
    const order = all.slice(0, -1).map(({ type, step }) => [type, step]);
    const of = (step: number): unknown[] => [['evaluation', step], ['evaluation', step]]; // prettier-ignore
    expect(order).toEqual([...of(0), ['step', 1], ...of(1), ['step', 2], ...of(2)]);
    const metrics = readFileSync(join(folder, 'run/metrics.ndjson'), 'utf8').trim();
    expect(events(metrics)).toEqual(all.slice(0, -1));
  });

  test('is shown in a line below that of its update, which is shown whatever the interval', async () => {
    const { stdout } = await validated(['--nproc', '1', 'train.train_iters=3', 'logger.log_interval=100'], {
      eval_interval: 2,
      eval_samples: 3,
    });
    const shown = events(stdout).map(({ type, step, set, tokens: counted }) => [type, step, set, counted]);
    expect(shown.slice(0, -1)).toEqual([
      ['step', 2, undefined, 8 * SEQ],
      ['evaluation', 2, 'text', 3 * SEQ],
      ['evaluation', 2, 'ids', 3 * SEQ],
      ['step', 3, undefined, 8 * SEQ],
      ['evaluation', 3, 'text', 3 * SEQ],
      ['evaluation', 3, 'ids', 3 * SEQ],
    ]);
  });
});

test('a run that is evaluated trains as one that is not, also where it is resumed', { timeout: 120_000 }, async () => {
  const folder = temporaryFolder();
  const [plain, halves] = [join(folder, 'plain'), join(folder, 'halves')];
  const grid = [...LAYOUT_FLAGS['tp2 dp2'], 'train.train_iters=4', 'scheduler.lr_decay_iters=12'];
  const reference = await pretrain({ folder, args: [...grid, `checkpoint.save=${plain}`] });
  expect(reference.exitCode, reference.stderr).toBe(0);
  const saved = [...grid, `checkpoint.save=${halves}`];
  const often = { eval_at_start: true, eval_samples: 5 };
  const first = await validated([...saved, 'train.exit_interval=2'], often);
  expect(first.exitCode, first.stderr).toBe(0);
  const second = await validated([...saved, `checkpoint.load=${halves}`], { ...often, eval_interval: 3 });
  expect(second.exitCode, second.stderr).toBe(0);
  expect([...stepsOf(first.stdout), ...stepsOf(second.stdout)]).toEqual(stepsOf(reference.stdout));
  expectSameTensors(join(plain, 'step-00000004'), join(halves, 'step-00000004'));
  // Before the first update that is run, after each third, and at the end.
  expect([...new Set(evaluations(second.stdout).map(({ step }) => step))]).toEqual([2, 3, 4]);
  // The same weights and samples, whatever the training has read meanwhile.
  const at2 = (run: typeof first): unknown[] =>
    evaluations(run.stdout).filter(({ step }) => step === 2).map(({ set, loss }) => [set, loss]); // prettier-ignore
  expect(at2(second)).toEqual(at2(first));
});

describe('what cannot be evaluated is one error', () => {
  test.each<[string, Record<string, unknown>, number, string]>([
    ['no set', { sets: {} }, 3, 'validation.eval_interval: there is no validation set; name one'],
    ['no file', { sets: { a: { type: 'text', path: 'nowhere.txt' } } }, 7, 'cannot read data file nowhere.txt'],
    [
      'a set that is too small',
      { eval_iters: 2 },
      7,
      'valid.txt: 854 tokens, 13 samples of 64): 16 samples are to be evaluated, there are 13\n',
    ],
    [
      'two lengths',
      { eval_iters: 1, eval_samples: 1 },
      3,
      'validation.eval_samples: is set beside validation.eval_iters',
    ],
    ['an endless set', { sets: { a: { type: 'mock' } } }, 3, 'validation.sets: a has no end'],
    ['no interval', { eval_interval: null, eval_at_start: true }, 3, 'validation.eval_at_start: nothing is evaluated'],
    [
      'an unknown key',
      { sets: { a: { type: 'text', pth: 'x', path: 'x' } } },
      3,
      'validation.sets.a.pth: unknown key (did you mean path?)',
    ],
    [
      'an unknown type',
      { sets: { a: { type: 'txt' } } },
      3,
      'validation.sets.a.type: expected one of mock, indexed, jsonl, text, chat, got "txt"',
    ],
    ['no section', { sets: { a: 3 } }, 3, 'validation.sets.a: expected a section of keys, got 3'],
    ['a name that is a path', { sets: { 'a/b': { type: 'mock' } } }, 3, 'validation.sets.a/b: a name has letters'],
  ])('%s', async (_, validation, exitCode, message) => {
    const run = await validated(['--nproc', '2'], validation);
    expect(run.exitCode, run.stderr).toBe(exitCode);
    expect(run.stderr).toContain(message);
    expect(run.stderr.match(/error/g)).toHaveLength(1);
  });
});

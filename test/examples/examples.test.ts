import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { mbridge } from '../cli/mbridge.js';

const EXAMPLES = join(import.meta.dirname, '../../dist/examples');
const FOLDER = join(EXAMPLES, 'decentralized-pg');
const FULL = process.env['MBRIDGE_TEST_FULL'] === '1';
const SMALL = '--hidden-size 64 --vocab-size 512 --seq-length 64 --train-iters 3 --global-batch-size 8'.split(' ');

/** Runs an example as its header says, in an empty folder, which `look` sees when it has ended. */
async function run(
  example: string,
  args: readonly string[],
  look: (folder: string) => void = () => undefined,
): Promise<string> {
  const cwd = mkdtempSync(join(tmpdir(), 'mbridge-example-'));
  try {
    const { all, exitCode } = await execa(process.execPath, [resolve(FOLDER, example), ...args], {
      cwd,
      all: true,
      reject: false,
    });
    expect(exitCode, all).toBe(0);
    look(cwd);
    return all;
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

const losses = (text: string): number[] => [...text.matchAll(/loss (\d+\.\d+)/g)].map((match) => Number(match[1]));

// The README has it train on 2 and 8, which test/docs holds it to.
test('the simple path trains on 4 processes', async () => {
  const text = await run('pretrain-qwen3-simple.js', '--nproc 4 --tiny 1 --train-iters 3'.split(' '));
  const [first, , last] = losses(text);
  expect(last).toBeLessThan(first!);
});

test("a program's own samples train, whatever the number of processes", async () => {
  const example = join(EXAMPLES, 'own-data/pretrain-on-own-data.js');
  const [one, two] = [
    await run(example, ['--train-iters', '3']),
    await run(example, ['--nproc', '2', '--train-iters', '3']),
  ];
  expect(one).toContain('counting upwards');
  const [first, , last] = losses(one);
  expect(last).toBeLessThan(first!);
  losses(two).forEach((loss, i) => expect(loss).toBeCloseTo(losses(one)[i]!, 3));
});

test('the advanced path gives the same losses on 2, 4 and 8 processes', async () => {
  const layouts = [
    ['--nproc', '2', '--tp-size', '2', '--pp-size', '1'],
    ['--nproc', '4', '--tp-size', '2', '--pp-size', '2'],
    ['--nproc', '8'],
    ['--nproc', '4', '--tp-size', '2', '--pp-size', '1', '--cp-size', '2'],
  ];
  const runs: number[][] = [];
  for (const layout of layouts) {
    runs.push(losses(await run('pretrain-qwen3-with-decentralized-pg.js', [...layout, ...SMALL])));
  }
  expect(runs[0]).toHaveLength(3);
  expect(runs[1]).toEqual(runs[0]);
  expect(runs[2]).toEqual(runs[0]);
  expect(runs[3]).toEqual(runs[0]);
});

test('preferences are learned, alike on one rank and on four', async () => {
  const example = join(EXAMPLES, 'preferences/dpo.js');
  const [one, four] = [
    await run(example, []),
    await run(example, ['--nproc', '4', '--tp-size', '2', '--pp-size', '2']),
  ];
  // Before the first update the policy is the reference: a pair costs log 2.
  expect(losses(one)[0]).toBeCloseTo(Math.log(2), 4);
  expect(losses(one).at(-1)).toBeLessThan(0.05);
  losses(four).forEach((loss, i) => expect(loss).toBeCloseTo(losses(one)[i]!, 3));
});

/** Reward of each update, and how far the first ratios were from 1. */
async function rewards(args: readonly string[]): Promise<{ reward: number[]; off: number[] }> {
  const text = await run(join(EXAMPLES, 'policy/grpo.js'), args);
  const found = [...text.matchAll(/reward=(\S+) ratio_off=(\S+)/g)];
  return { reward: found.map(([, reward]) => Number(reward)), off: found.map(([, , off]) => Number(off)) };
}
const SPREAD = '--nproc 4 --tp-size 2 --pp-size 2 --reference-pp-size 2'.split(' ');

test('a policy samples through a model of its own layout, which has its weights before every update', async () => {
  const one = await rewards(['--nproc', '1', '--train-iters', '2']);
  // The sampler is dp 4: of tp 1, where the policy is of tp 2.
  const spread = await rewards([...SPREAD, '--train-iters', '2']);
  expect(one.reward).toHaveLength(2);
  expect(one.off).toEqual([0, 0]);
  // One of 64 tokens is right by chance; the first tokens of every row are the same, whoever makes them.
  expect(one.reward[0]).toBeLessThan(0.04);
  expect(spread.reward[0]).toBe(one.reward[0]);
  for (const off of spread.off) expect(off).toBeLessThan(1e-5);
});

test.each(FULL ? ['16', '0'] : ['16'])("a student's losses are the same on every layout, with k %s", async (k) => {
  const few = ['--teacher-iters', '2', '--train-iters', '3', '--k', k];
  const layouts = [
    ['--nproc', '1'],
    ['--nproc', '4', '--teacher-tp', '2', '--tp-size', '2', '--pp-size', '2'],
    ...(FULL
      ? [
          ['--nproc', '2', '--teacher-tp', '2', '--pp-size', '2'],
          ['--nproc', '2', '--teacher-pp', '2', '--tp-size', '2'],
          ['--nproc', '2', '--teacher-tp', '2'],
        ]
      : []),
  ];
  const runs: number[][] = [];
  for (const layout of layouts) {
    const text = await run(join(EXAMPLES, 'distillation/distill.js'), [...layout, ...few]);
    runs.push([...text.matchAll(/^student .*loss=(\S+)/gm)].map(([, loss]) => Number(loss)));
  }
  expect(runs[0]).toHaveLength(3);
  expect(runs[0]!.at(-1)).toBeLessThan(runs[0]![0]!);
  for (const losses of runs) losses.forEach((loss, i) => expect(Math.abs(loss - runs[0]![i]!)).toBeLessThan(1e-6));
});

test
  .runIf(FULL)
  .each([[['--nproc', '1']], [SPREAD], ['--nproc 2 --tp-size 2 --sampler-tp-size 2 --reference-pp-size 2'.split(' ')]])(
  'a policy learns to be rewarded: %s',
  async (layout) => {
    const { reward } = await rewards(layout);
    expect(reward).toHaveLength(110);
    expect(Math.max(...reward.slice(0, 90))).toBeGreaterThan(0.9);
    expect(reward.slice(-10).reduce((sum, x) => sum + x, 0) / 10).toBeGreaterThan(0.9);
  },
  600_000,
);

test('one model learns what another one wrote, on ranks and in a layout of its own', async () => {
  const example = join(EXAMPLES, 'pipelines/two-stage-pipeline.js');
  const found = losses(await run(example, '--writer-tp-size 2 --reader-pp-size 2 --train-iters 4'.split(' ')));
  expect(found).toHaveLength(4);
  expect(found[3]).toBeLessThan(found[0]! / 2);
  // Whoever writes and reads.
  const [first] = losses(await run(example, '--reader-tp-size 2 --train-iters 1'.split(' ')));
  expect(first).toBeCloseTo(found[0]!, 3);
});

test('one model over two grids of different tp has the losses and gradients of one process', async () => {
  const steps: { loss: number; grad_norm: number }[] = [];
  await run(join(EXAMPLES, 'pipelines/one-model-two-grids.js'), ['--train-iters', '2'], (folder) => {
    const [name = ''] = readdirSync(join(folder, 'runs'));
    const lines = readFileSync(join(folder, 'runs', name, 'metrics.ndjson'), 'utf8')
      .trim()
      .split('\n');
    steps.push(...lines.map((line) => JSON.parse(line) as (typeof steps)[number]));
  });
  const set = 'train.train_iters=2 model.seq_length=64 train.global_batch_size=12 model.tie_word_embeddings=false';
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-example-'));
  const alone = await mbridge([
    'pretrain',
    'qwen3-tiny',
    '--nproc',
    '1',
    '--json',
    '--log-dir',
    folder,
    ...set.split(' '),
  ]);
  rmSync(folder, { recursive: true, force: true });
  const wanted = alone.stdout
    .split('\n')
    .filter((line) => line.includes('"type":"step"'))
    .map((line) => JSON.parse(line) as (typeof steps)[number]);
  expect(wanted).toHaveLength(2);
  expect(steps).toHaveLength(2);
  wanted.forEach(({ loss, grad_norm: norm }, i) => {
    expect(Math.abs(steps[i]!.loss / loss - 1)).toBeLessThan(1e-6);
    expect(Math.abs(steps[i]!.grad_norm / norm - 1)).toBeLessThan(2e-6);
  });
});

interface Rollout {
  readonly reward: number;
  readonly explained: number;
}

async function rollouts(args: string): Promise<Rollout[]> {
  const text = await run(join(EXAMPLES, 'policy/ppo.js'), args.split(' '));
  const found = [...text.matchAll(/reward=(\S+) explained_variance=(\S+)/g)];
  return found.map(([, reward, explained]) => ({ reward: Number(reward), explained: Number(explained) }));
}

test('policy, value model and reference with layouts of their own share a job', async () => {
  const one = await rollouts('--nproc 1 --train-iters 3');
  const four = await rollouts('--nproc 4 --pp-size 2 --value-tp-size 2 --reference-tp-size 4 --train-iters 3');
  expect(one).toHaveLength(2);
  // The same tokens, and the same values of them, whatever the layouts.
  expect(four.map(({ reward }) => reward)).toEqual(one.map(({ reward }) => reward));
  four.forEach(({ explained }, i) => expect(explained / one[i]!.explained).toBeCloseTo(1, 3));
  // What is new says nothing; two updates have it say less that is wrong.
  expect(one[1]!.explained).toBeGreaterThan(one[0]!.explained);
});

test.runIf(FULL).each(['--nproc 1', '--nproc 4 --tp-size 2 --value-pp-size 2', '--nproc 2 --value-tp-size 2'])(
  'a policy and its value model learn: %s',
  async (layout) => {
    const { reward, explained } = (await rollouts(layout)).at(-1)!;
    expect(reward).toBeGreaterThan(0.9);
    expect(explained).toBeGreaterThan(0.9);
  },
  600_000,
);

test.each([
  ['pretrain-qwen3-simple.js', '--nproc x', 2, "MB_USAGE: --nproc expects a number, got 'x'"],
  ['pretrain-qwen3-simple.js', '--nproc', 2, "MB_USAGE: Option '--nproc <value>' argument missing"],
  ['pretrain-qwen3-simple.js', '--procs 2', 2, "MB_USAGE: Unknown option '--procs'"],
  ['pretrain-qwen3-simple.js', '--tiny 1 --nproc 0', 3, 'MB_CONFIG_LAYOUT: 0 processes'],
  ['pretrain-qwen3-simple.js', '--tiny 1 --nproc 3', 3, 'MB_CONFIG_LAYOUT: tp 2 x pp 1 = 2 does not divide'],
  ['pretrain-qwen3-simple.js', '--tiny 1 --train-iters 0', 3, 'MB_CONFIG_VALUE: argument train_iters'],
  ['pretrain-qwen3-with-decentralized-pg.js', '--nproc 2 --tp-size 3 --pp-size 1', 3, 'MB_CONFIG_LAYOUT: 3 problems'],
  ['../policy/ppo.js', '--train-iters 1.5', 3, 'MB_CONFIG_VALUE: argument train_iters'],
])('%s %s is refused in words', async (example, line, exitCode, message) => {
  const command = [join(FOLDER, example), ...line.split(' ')];
  const outcome = await execa(process.execPath, command, { reject: false });
  expect(outcome.stderr.startsWith(`error ${message}`), outcome.stderr).toBe(true);
  expect(outcome.stderr).not.toMatch(/^ +at /m);
  expect(outcome.exitCode).toBe(exitCode);
});

test('the best of several continuations is found on stages of a pipeline', async () => {
  const text = await run('../generation/best-of.js', ['--nproc', '2', '--pp-size', '2']);
  expect(text).toMatch(/^best {2}row=\d+ logprob=-\d/m);
});

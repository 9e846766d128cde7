import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';

const EXAMPLES = join(import.meta.dirname, '../../dist/examples');
const FOLDER = join(EXAMPLES, 'decentralized-pg');
const SMALL = '--hidden-size 64 --vocab-size 512 --seq-length 64 --train-iters 3 --global-batch-size 8'.split(' ');

/** Runs an example as its header says, in an empty folder. */
async function run(example: string, args: readonly string[]): Promise<string> {
  const cwd = mkdtempSync(join(tmpdir(), 'mbridge-example-'));
  try {
    const { all, exitCode } = await execa(process.execPath, [resolve(FOLDER, example), ...args], {
      cwd,
      all: true,
      reject: false,
    });
    expect(exitCode, all).toBe(0);
    return all;
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

const losses = (text: string): number[] => [...text.matchAll(/loss (\d+\.\d+)/g)].map((match) => Number(match[1]));

test.each([2, 4, 8])('the simple path trains on %i processes', async (nproc) => {
  const text = await run('pretrain-qwen3-simple.js', ['--nproc', String(nproc), '--tiny', '1', '--train-iters', '3']);
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

test('a policy learns from rewards, alike on one rank and on two', async () => {
  const rewards = async (...args: string[]): Promise<number[]> => {
    const text = await run(join(EXAMPLES, 'policy/grpo.js'), args);
    return [...text.matchAll(/reward=(\S+)/g)].map(([, reward]) => Number(reward));
  };
  const found = await rewards('--nproc', '1', '--train-iters', '26');
  expect(found).toHaveLength(26);
  // One of 64 tokens is right by chance.
  expect(found[0]).toBeLessThan(0.04);
  expect(found.at(-1)).toBeGreaterThan(0.08);
  // The same tokens of every row, whichever replica makes them.
  expect((await rewards('--nproc', '2', '--train-iters', '2'))[0]).toBe(found[0]);
});

const everyLayout = process.env['MBRIDGE_TEST_FULL'] === '1';

test.each(everyLayout ? ['16', '0'] : ['16'])(
  "a student's losses are the same on every layout, with k %s",
  async (k) => {
    const few = ['--teacher-iters', '2', '--train-iters', '3', '--k', k];
    const layouts = [
      ['--nproc', '1'],
      ['--nproc', '4', '--teacher-tp', '2', '--tp-size', '2', '--pp-size', '2'],
      ...(everyLayout
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
  },
);

test('three models with layouts of their own share a job', async () => {
  const text = await run('policy-value-reference.js', ['--train-iters', '3']);
  const rows = [...text.matchAll(/policy=(\S+) reference=(\S+)/g)].map((m) => [Number(m[1]), Number(m[2])] as const);
  expect(rows).toHaveLength(3);
  // The same weights and data at first: a frozen pp 2 model and a trained tp 2 one see the same loss.
  expect(Math.abs(rows[0]![0] - rows[0]![1])).toBeLessThan(1e-5);
  expect(rows[2]![0]).toBeLessThan(rows[2]![1] - 0.5);
});

test.each([
  ['pretrain-qwen3-simple.js', '--nproc x', 2, "MB_USAGE: --nproc expects a number, got 'x'"],
  ['pretrain-qwen3-simple.js', '--nproc', 2, "MB_USAGE: Option '--nproc <value>' argument missing"],
  ['pretrain-qwen3-simple.js', '--procs 2', 2, "MB_USAGE: Unknown option '--procs'"],
  ['pretrain-qwen3-simple.js', '--tiny 1 --nproc 0', 3, 'MB_CONFIG_LAYOUT: 0 processes'],
  ['pretrain-qwen3-simple.js', '--tiny 1 --nproc 3', 3, 'MB_CONFIG_LAYOUT: tp 2 x pp 1 = 2 does not divide'],
  ['pretrain-qwen3-simple.js', '--tiny 1 --train-iters 0', 3, 'MB_CONFIG_VALUE: argument train_iters'],
  ['pretrain-qwen3-with-decentralized-pg.js', '--nproc 2 --tp-size 3 --pp-size 1', 3, 'MB_CONFIG_LAYOUT: 3 problems'],
  ['policy-value-reference.js', '--train-iters 1.5', 3, 'MB_CONFIG_VALUE: argument train_iters'],
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

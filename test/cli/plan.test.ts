import { expect, test, vi } from 'vitest';
import type { OutputFacts } from '../../src/outputs/line.js';
import { readOutput } from '../helpers/outputs.js';
import { mbridge } from './mbridge.js';

vi.setConfig({ testTimeout: 60_000 });

/** Of the lines of the table: the ranks, and what is said of them at its end. */
function rowsOf(stdout: string): string[] {
  return [...stdout.matchAll(/^([\d-]+(?:, [\d-]+)*) {2,}\S.*?(fits|too much)$/gm)].map(
    ([, ranks, end]) => `${ranks} ${end}`,
  );
}

test.each([
  ['qwen3-4b --nproc 8 --gpu h100-80gb', 0, ['0-7 fits']],
  ['qwen3-4b --nproc 8 --tp-size 2 --pp-size 2 --gpu h100-80gb', 0, ['0-3 fits', '4-7 fits']],
  ['qwen3-8b --nproc 4 --gpu h200-141gb', 0, ['0-3 fits']],
  ['qwen3-8b --nproc 4 --gpu h100-80gb', 4, ['0-3 too much']],
  ['qwen3-4b --nproc 2 --pp-size 2 --gpu a100-40gb', 4, ['0 too much', '1 too much']],
  ['qwen3-0.6b --nproc 4 --gpu a100-40gb dist.ranks_per_gpu=2', 0, ['0-3 fits']],
  ['qwen3-0.6b --nproc 4 --gpu a100-40gb dist.ranks_per_gpu=4', 4, ['0-3 too much']],
  [
    'qwen3-32b --nproc 64 --tp-size 8 --pp-size 4 --vp-size 4 train.global_batch_size=128 --gpu h100-80gb',
    0,
    ['0-15 fits', '16-31 fits', '32-47 fits', '48-63 fits'],
  ],
  [
    'qwen3-32b --nproc 64 --pp-size 8 --gpu h100-80gb train.global_batch_size=64',
    4,
    [
      '0-7 too much',
      '8-15 too much',
      '16-23 too much',
      '24-31 fits',
      '32-39 fits',
      '40-47 fits',
      '48-55 fits',
      '56-63 fits',
    ],
  ],
])('plan %s: exit code %i, %j', async (line, code, rows) => {
  const { exitCode, stdout, stderr } = await mbridge(['plan', ...line.split(' ')]);
  expect(exitCode, stderr).toBe(code);
  expect(rowsOf(stdout)).toEqual(rows);
  expect(stdout.split('\n').filter(({ length }) => length > 80)).toEqual([]);
  expect(stdout).toMatch(code === 0 ? /^fits: [\d.]+ GiB on the fullest GPU/m : /^does not fit: [\d.]+ GiB/m);
  expect(stdout).toMatch(/^predicted: [\d,.]+ ms a step, [\d,]+ tokens\/s, [\d,]+ a GPU, MFU [\d.]+ %$/m);
  expect(stdout).toMatch(/pipeline bubble [\d.]+ %/);
  if (code === 0) return;
  expect(stderr).toMatch(
    /error MB_MEMORY_PLAN: (rank 0 needs|the ranks on the GPU of rank 0 need) [\d.]+ GiB \(.*\), \S+ has [\d.]+ GiB: [\d.]+ GiB too much\n/,
  );
  expect(stderr).toMatch(/(--tp-size|train.micro_batch_size).*; mbridge tune /);
});

test('--json: the same, with units in the keys', async () => {
  const line = 'plan qwen3-8b --nproc 4 --tp-size 2 --gpu h100-80gb --json';
  const { exitCode, stdout } = await mbridge(line.split(' '));
  expect(exitCode).toBe(0);
  const plan = readOutput<OutputFacts<'plan'>>(stdout);
  expect(plan.device).toBe('cuda');
  const { total_bytes: total, runtime_bytes: runtime } = plan.ranks[0]!;
  expect(plan).toMatchObject({
    gpu: { name: 'h100-80gb', usable_bytes: 79.1 * 2 ** 30 },
    fits: true,
    needed_bytes: total + runtime,
    predicted: { step_time_ms: expect.any(Number) as number, pipeline_bubble: 0, parts_ms: { bubble: 0 } },
  });
  const predicted = plan['predicted'] as {
    step_time_ms: number;
    tokens_per_s: number;
    tokens_per_s_per_device: number;
  };
  expect((predicted.tokens_per_s * predicted.step_time_ms) / 1000).toBeCloseTo(plan.tokens_per_step, 3);
  expect(predicted.tokens_per_s_per_device * 4).toBeCloseTo(predicted.tokens_per_s, 6);
});

test.each([
  ['--gpu h100-80', 'unknown GPU h100-80 (did you mean h100-80gb?)'],
  ['--gpu h100-80gb --device cpu', '--gpu h100-80gb for a run on the CPU'],
])('%s is refused: %s', async (flags, said) => {
  const { exitCode, stderr } = await mbridge(['plan', 'qwen3-tiny', ...flags.split(' ')]);
  expect(exitCode).toBe(2);
  expect(stderr).toContain(`error MB_USAGE: ${said}`);
});

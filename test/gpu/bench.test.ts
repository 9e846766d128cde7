import { expect, test } from 'vitest';
import type { OutputFacts } from '../../src/outputs/line.js';
import { visibleGpus } from '../../src/engine/devices.js';
import { readOutput } from '../helpers/outputs.js';
import { mbridge } from '../cli/mbridge.js';

type BenchReport = OutputFacts<'bench'>;

async function bench(...args: string[]): Promise<BenchReport> {
  const { exitCode, stdout, stderr } = await mbridge(['bench', ...args, '--device', 'cuda', '--json']);
  expect(exitCode, stderr).toBe(0);
  return readOutput<BenchReport>(stdout);
}

function numbers({ tables }: BenchReport, column: string): number[] {
  return tables[0]!.rows.map((row) => Number(row[column]));
}

test('the products of a 0.6B run near the large one', async () => {
  const report = await bench('gemm', 'qwen3-0.6b');
  // A wrong layout or a float32 path is ten times slower; the smallest product reaches a third.
  for (const share of numbers(report, 'ceiling_percent')) expect(share).toBeGreaterThan(25);
});

test('attention in bf16 is not served by the fallback kernel where cuDNN is there', async () => {
  const report = await bench('attention', 'qwen3-0.6b');
  const expected = report.versions['cuDNN'] === 'missing' ? /mbridge/ : /cudnn/i;
  for (const { documents, kernel } of report.tables[0]!.rows) {
    // No library serves packed sequences.
    expect(kernel).toMatch(documents === 1 ? expected : /^mbridge$/);
  }
});

test.skipIf(visibleGpus() < 2)('collectives over all GPUs', async () => {
  const report = await bench('comm', '--largest', String(2 ** 26));
  for (const rate of numbers(report, 'bus_gb_per_s')) expect(rate).toBeGreaterThan(0);
});

test('a step of a 0.6B, call by call', async () => {
  const args = ['--nproc', '1', 'train.global_batch_size=2', '--steps', '3', '--warmup', '2', '--profile'];
  const report = await bench('step', 'qwen3-0.6b', ...args);
  expect(numbers(report, 'tokens_per_s_per_device')[0]).toBeGreaterThan(0);
  const calls = report.tables.find(({ table }) => table === 'calls')!;
  expect(calls.rows.find(({ call }) => call === 'attention_fwd')!['calls']).toBe(28 * 2);
});

test.each([1, 2, 4].filter((gpus) => gpus <= visibleGpus()))('a 0.6B parked on %i GPUs', async (gpus) => {
  const layout = gpus === 4 ? ['--tp-size', '2', '--pp-size', '2'] : ['--tp-size', String(gpus)];
  const report = await bench('park', 'qwen3-0.6b', '--nproc', String(gpus), ...layout, 'model.seq_length=512');
  expect(report.tables[1]!.rows).toEqual([{ updates: 6, differing: 0 }]);
  const [planned, freed] = [numbers(report, 'planned_bytes'), numbers(report, 'freed_bytes')];
  // The driver gives memory in blocks of 2 MiB.
  planned.forEach((bytes, i) => expect(Math.abs(freed[i]! - bytes)).toBeLessThan(2 ** 22));
  for (const share of [...numbers(report, 'park_copy_percent'), ...numbers(report, 'unpark_copy_percent')]) {
    expect(share).toBeGreaterThan(50);
  }
});

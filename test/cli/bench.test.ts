import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import type { OutputFacts } from '../../src/outputs/line.js';
import { readOutput } from '../helpers/outputs.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { mbridge } from './mbridge.js';

// Every case measures with real processes, which may have to wait for cores that other tests hold.
vi.setConfig({ testTimeout: 60_000 });

type BenchReport = OutputFacts<'bench'>;

const TINY = ['--device', 'cpu', 'model.seq_length=64', 'model.num_hidden_layers=2'];

async function bench(...args: string[]): Promise<BenchReport> {
  const { exitCode, stdout, stderr } = await mbridge(['bench', ...args, ...TINY, '--json']);
  expect(exitCode, stderr).toBe(0);
  return readOutput<BenchReport>(stdout);
}

/** All values of a column, over all rows of the first table. */
function column({ tables }: BenchReport, name: string): unknown[] {
  return (tables[0]?.rows ?? []).map((row) => row[name]);
}

function expectPositive(values: readonly unknown[]): void {
  expect(values.length).toBeGreaterThan(0);
  for (const value of values) expect(value).toBeGreaterThan(0);
}

test('gemm: every product of the model, forward and backward, at the sizes of a tensor-parallel rank', async () => {
  const report = await bench('gemm', 'qwen3-tiny', '--tp-size', '2');
  const shapes = report.tables[0]!.rows.map(
    (row) => `${row['layer']} ${row['pass']} ${row['inputs']}->${row['outputs']}`,
  );
  expect(shapes).toHaveLength(15);
  expect(shapes).toContain('qkv forward 256->256');
  expect(shapes).toContain('down wgrad 384->256');
  expectPositive(column(report, 'tflop_per_s'));
  expect(report.ceilings!.copy_gb_per_s).toBeGreaterThan(0);
  expect(report.command).toContain('mbridge bench gemm qwen3-tiny --tp-size 2');
});

test('attention: both passes, deterministic or not, of whole and packed sequences, and who serves them', async () => {
  const report = await bench('attention');
  expect(column(report, 'pass')).toEqual(['forward', 'backward', 'forward', 'backward', 'forward', 'backward']);
  expect(column(report, 'deterministic')).toEqual([false, false, true, true, true, true]);
  expect(column(report, 'documents')).toEqual([1, 1, 1, 1, 4, 4]);
  expect(column(report, 'kernel').join()).toMatch(/mbridge/);
  expectPositive(column(report, 'tflop_per_s'));
});

test('ops: every op moves its bytes in a measured time', async () => {
  const report = await bench('ops');
  expect(column(report, 'op')).toEqual(expect.arrayContaining(['rmsnorm_bwd', 'qknorm_rope_fwd', 'ce_grad', 'adamw']));
  expectPositive(column(report, 'time_ms'));
  // SwiGLU reads [tokens, 2 f] and writes [tokens, f]: 64 * 3 * 768 floats.
  const bytes = (name: string): unknown => report.tables[0]!.rows.find(({ op }) => op === name)!['moved_bytes'];
  expect(bytes('swiglu_fwd')).toBe(64 * 3 * 768 * 4);
  // Of qkv, [tokens, 512], the keys and values are read and written: half of its columns.
  expect(bytes('copy_2d')).toBe(64 * 2 * 256 * 4);
  expect(bytes('bias_add')).toBe((64 * 2 + 1) * 512 * 4);
  expect(bytes('bias_grad')).toBe((64 + 2) * 512 * 4);
});

test.each([
  { name: 'a whole sequence', args: [] },
  { name: 'a ring', args: ['--cp-size', '2', 'model.cp_comm_type=p2p'] },
])('bound of $name: the parts add up to the whole', async ({ args }) => {
  const report = await bench('bound', ...args);
  const total = column(report, 'total_ms').reduce<number>((sum, ms) => sum + Number(ms), 0);
  const stated = Number(report.tables[1]!.rows[0]!['micro_batch_ms']);
  expect(Math.abs(total / stated - 1)).toBeLessThan(0.02);
  const shares = column(report, 'bound_percent').reduce<number>((sum, share) => sum + Number(share), 0);
  expect(shares).toBeCloseTo(100, 0);
  const attention = report.tables[0]!.rows.filter(({ part }) => String(part).includes('forward'));
  const calls = attention.filter(({ part }) => String(part).startsWith('attention'));
  // Two layers: of each, two chunks' own keys, and three pairs of a chunk and an earlier one that a rank of two meets.
  expect(calls.map(({ count }) => count)).toEqual(args.length === 0 ? [2] : [4, 6]);
  const work = calls.map((row) => Number(row['tflop_per_s']) * Number(row['each_ms']));
  // A chunk's queries see half of their own keys, and all of another chunk's; the columns are rounded.
  for (const other of work.slice(1)) expect(Math.round(other / work[0]!)).toBe(2);
});

test('comm: every collective at every size over the launched ranks', async () => {
  const report = await bench('comm', '--nproc', '2', '--largest', '1048576');
  const sizes = [14, 16, 18, 20].map((power) => 2 ** power);
  expect(column(report, 'buffer_bytes')).toEqual(sizes.flatMap((size) => Array<number>(4).fill(size)));
  expect(new Set(column(report, 'collective')).size).toBe(4);
  expectPositive(column(report, 'bus_gb_per_s'));
});

test('step: times, memory, and where one step goes call by call', async () => {
  const report = await bench('step', '--nproc', '2', '--pp-size', '2', '--steps', '2', '--warmup', '1', '--profile');
  const [steps, memory, first, last] = report.tables;
  expect(steps!.rows[0]).toMatchObject({ ranks: 2, tp: 1, pp: 2, seq_length: 64 });
  expect(steps!.rows[0]!['tokens_per_s_per_device']).toBeGreaterThan(0);
  expect(memory!.rows.map(({ rank }) => rank)).toEqual([0, 1]);
  // One layer a stage, 8 micro-batches: as many attention forwards on each; the embedding is on the first, the loss on the last.
  const calls = (rows: BenchReport['tables'][number], name: string): unknown =>
    rows.rows.find(({ call }) => call === name)?.['calls'];
  expect(calls(first!, 'attention_fwd')).toBe(8);
  expect(calls(last!, 'attention_fwd')).toBe(8);
  expect([calls(first!, 'embed_fwd'), calls(last!, 'embed_fwd')]).toEqual([8, undefined]);
  expect([calls(first!, 'ce_grad'), calls(last!, 'ce_grad')]).toEqual([undefined, 8]);
  expect(calls(first!, 'send/receive')).toBeGreaterThan(0);
});

test('park: a model is parked and goes on with the same losses, its memory given back meanwhile', async () => {
  const report = await bench('park', '--nproc', '2', '--tp-size', '2', '--steps', '4');
  expect(column(report, 'rank')).toEqual([0, 1]);
  expect(report.tables[1]!.rows).toEqual([{ updates: 4, differing: 0 }]);
  for (const { planned_bytes: planned, freed_bytes: freed } of report.tables[0]!.rows) {
    expect(Math.abs(Number(freed) - Number(planned))).toBeLessThan(2 ** 20);
  }
  for (const name of ['park_ms', 'unpark_ms', 'park_gb_per_s', 'unpark_gb_per_s']) expectPositive(column(report, name));
});

test('a run that fails is told about, with its exit code', async () => {
  const { exitCode, stderr } = await mbridge(['bench', 'step', 'qwen3-tiny', '--nproc', '3', '--tp-size', '2']);
  expect(exitCode).toBe(3);
  expect(stderr).toContain('MB_CONFIG_LAYOUT');
});

test('comm takes any number of ranks; a step counts every step whatever is printed, and keeps a folder that is named', async () => {
  const three = await bench('comm', '--nproc', '3', '--largest', '16384');
  // A buffer divides among the ranks.
  expect(column(three, 'buffer_bytes')).toEqual(Array(4).fill(16_392));
  const folder = join(temporaryFolder(), 'run');
  const report = await bench('step', '--steps', '2', '--warmup', '1', 'logger.log_interval=10', '--log-dir', folder);
  expectPositive(column(report, 'step_ms'));
  expect(existsSync(join(folder, 'run.json'))).toBe(true);
});

test.each([
  ['is a number that is none', 100, 0],
  ['ends the run', 1, 8],
])('a loss that is not finite %s', async (_, allowed, code) => {
  const diverging = ['model.initializer_range=1e18', `train.max_skipped_in_a_row=${allowed}`];
  // A folder of a run that failed is kept.
  const folder = ['--log-dir', join(temporaryFolder(), 'run')];
  const args = ['bench', 'step', '--steps', '2', '--warmup', '1', ...TINY, ...diverging, ...folder];
  const json = await mbridge([...args, '--json']);
  expect(json.exitCode, json.stderr).toBe(code);
  const last = readOutput<BenchReport>(json.stdout);
  if (code === 0) {
    expect(column(last, 'loss')).toEqual([null]);
    expect((await mbridge(args)).stdout).toMatch(/^steps: .*\n.* loss\n.* NaN$/m);
  } else expect(last).toMatchObject({ type: 'result', ok: false, exit_code: code, error: { code: 'MB_DIVERGED' } });
});

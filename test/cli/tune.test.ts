import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { expect, test, vi } from 'vitest';
import { Running, temporaryFolder, waitFor } from '../job/launch/processes.js';
import { BIN, mbridge } from './mbridge.js';

vi.setConfig({ testTimeout: 120_000 });

interface Found {
  readonly interrupted: boolean;
  readonly considered: number;
  readonly planned: number;
  readonly command: readonly string[];
  readonly settings: readonly {
    readonly tp: number;
    readonly cp: number;
    readonly dp: number;
    readonly pp: number;
    readonly planned_bytes: number;
    readonly predicted: { readonly step_time_ms: number; readonly tokens_per_s: number };
    readonly measured: { readonly step_time_ms: number; readonly tokens_per_s: number } | null;
    readonly flags: readonly string[];
  }[];
}

/** Of a run in a setting: that its plan is accepted, and, where a GPU is named, that it fits. */
async function planOf(found: Found, i: number, more: readonly string[]): Promise<{ readonly tokens_per_step: number }> {
  // A plan is of all ranks, wherever they are.
  const run = found.command
    .slice(2)
    .join(' ')
    .replace(/ --nnodes .*HOST:PORT/, '')
    .split(' ');
  const { exitCode, stdout, stderr } = await mbridge(['plan', ...run, ...found.settings[i]!.flags, ...more, '--json']);
  expect(exitCode, stderr).toBe(0);
  return JSON.parse(stdout) as { tokens_per_step: number };
}

test('on the CPU: the fastest by prediction are run, and what was measured decides', async () => {
  const line =
    'tune qwen3-tiny --nproc 2 --device cpu --best 3 --runs 2 --steps 2 model.num_hidden_layers=2 model.seq_length=64 --json';
  const { exitCode, stdout, stderr } = await mbridge(line.split(' '));
  expect(exitCode, stderr).toBe(0);
  const found = JSON.parse(stdout) as Found;
  expect(found.interrupted).toBe(false);
  expect(found.settings).toHaveLength(3);
  const measured = found.settings.map((setting) => setting.measured);
  expect(measured.map((each) => each !== null)).toEqual([true, true, false]);
  const [first, second] = measured.map((each) => each?.step_time_ms ?? NaN);
  expect(first).toBeLessThanOrEqual(second!);
  for (const [i, { tp, cp, dp, pp, planned_bytes: bytes, measured: each }] of found.settings.entries()) {
    expect(tp * cp * dp * pp).toBe(2);
    expect(bytes).toBeGreaterThan(2 ** 20);
    if (each === null) continue;
    const { tokens_per_step } = await planOf(found, i, []);
    expect((each.tokens_per_s * each.step_time_ms) / 1000).toBeCloseTo(tokens_per_step, 3);
  }
});

test.each([
  ['qwen3-4b --nproc 8', 8, 2],
  ['qwen3-8b --nproc 4 --tp 2 model.seq_length=8192', 4, 1],
  ['qwen3-32b --nproc 8 --nnodes 8 train.global_batch_size=128', 64, 1],
])('tune %s for H100s: every proposal is accepted by plan, and fits', async (line, ranks, best) => {
  const args = ['tune', ...line.split(' '), '--device-profile', 'h100-80gb', '--best', `${best}`];
  const { exitCode, stdout, stderr } = await mbridge([...args, '--json']);
  expect(exitCode, stderr).toBe(0);
  const found = JSON.parse(stdout) as Found;
  expect(found.settings).toHaveLength(best);
  // One plan of many: that is what makes it quick.
  expect(found.planned).toBeLessThan(found.considered / 5);
  expect(found.settings.map(({ measured }) => measured)).toEqual(Array(best).fill(null));
  const speeds = found.settings.map(({ predicted }) => predicted.tokens_per_s);
  expect(speeds).toEqual([...speeds].sort((a, b) => b - a));
  for (const i of found.settings.keys()) await planOf(found, i, ['--nproc', `${ranks}`, '--gpu', 'h100-80gb']);
  if (line.includes('--tp 2')) expect(found.settings.map(({ tp }) => tp)).toEqual(Array(best).fill(2));
});

test('as text: a table of 80 columns, and the command to use', async () => {
  const line = 'tune qwen3-8b --nproc 8 --gpu h100-80gb train.global_batch_size=64';
  const { exitCode, stdout } = await mbridge(line.split(' '));
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/^qwen3-8b on 8 ranks of h100-80gb: 64 x 4096 tokens an update\n\d+ settings, \d+ planned/);
  expect(stdout).toMatch(/^tp {2}cp {2}dp {2}pp {2}vp {2}micro {2}recompute {2}sharding +GiB +predicted +measured\n/m);
  expect(stdout.split('\n').filter(({ length }) => length > 80)).toEqual([]);
  const command = /^use:\n([^]*)$/m.exec(stdout)?.[1]?.replaceAll('\\\n', ' ').trim().split(/\s+/) ?? [];
  expect(command.slice(0, 3)).toEqual(['mbridge', 'pretrain', 'qwen3-8b']);
  const plan = await mbridge(['plan', ...command.slice(2), '--gpu', 'h100-80gb']);
  expect(plan.exitCode, plan.stderr).toBe(0);
});

test.each([
  [
    'qwen3-32b --nproc 1 --gpu h100-80gb',
    4,
    /error MB_MEMORY_PLAN: no setting of 1 ranks fits [\d.]+ GiB of h100-80gb: the smallest/,
  ],
  ['qwen3-tiny --nproc 4 train.global_batch_size=7 --dp 2 --gpu h100-80gb', 2, /unknown option '--dp'/],
  ['qwen3-4b --nproc 8 --tp 3 --gpu h100-80gb', 3, /error MB_CONFIG_LAYOUT: /],
  ['qwen3-4b --gpu h100-80gb --device cpu', 2, /error MB_USAGE: --gpu h100-80gb for a run on the CPU/],
  ['qwen3-4b --gpu h800', 2, /error MB_USAGE: unknown GPU h800/],
])('tune %s ends with exit code %i', async (line, code, said) => {
  const { exitCode, stderr } = await mbridge(['tune', ...line.split(' ')]);
  expect(exitCode).toBe(code);
  expect(stderr).toMatch(said);
});

test('where every run fails it ends as they do, and proposes none', async () => {
  const line = 'tune qwen3-tiny --nproc 2 --device cpu --best 2 --runs 1 --steps 1 dataset.path=/nowhere/text.txt';
  // The folder of a run that failed stays.
  const run = new Running([process.execPath, BIN, ...line.split(' ')], { TMPDIR: temporaryFolder() });
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(7);
  expect(stderr).toContain('MB_DATA_UNREADABLE');
  expect(stdout).toMatch(/ failed$/m);
  expect(stdout).not.toContain('use:');
});

test('Ctrl-C ends it with what is known so far, and leaves no process and no file', async () => {
  const folder = temporaryFolder();
  const line = 'tune qwen3-tiny --nproc 2 --device cpu --steps 1000 --best 2 --json';
  const run = new Running([process.execPath, BIN, ...line.split(' ')], { TMPDIR: folder });
  const children = `/proc/${run.pid}/task/${run.pid}/children`;
  const [child] = await waitFor('a rank', () => {
    const pids = readFileSync(children, 'utf8').trim();
    return pids === '' ? undefined : pids.split(' ');
  });
  process.kill(run.pid, 'SIGINT');
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(130);
  const found = JSON.parse(stdout) as Found;
  expect(found.interrupted).toBe(true);
  expect(stderr).not.toContain('logs and configuration');
  expect(found.settings.map(({ measured }) => measured)).toEqual([null, null]);
  expect(existsSync(`/proc/${child}`)).toBe(false);
  expect(readdirSync(folder)).toEqual([]);
});

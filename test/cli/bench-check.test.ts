import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import type { CheckResult } from '../../src/bench/check/check.js';
import { mbridge } from './mbridge.js';

// Every check trains with real processes, which may have to wait for cores that other tests hold.
vi.setConfig({ testTimeout: 120_000 });

const FIXTURES = join(import.meta.dirname, '../..', 'fixtures');
const folder = mkdtempSync(join(tmpdir(), 'mbridge-check-test-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

async function check(...args: string[]): Promise<{ exitCode: number | undefined; results: CheckResult[] }> {
  const { exitCode, stdout } = await mbridge(['bench', 'check', '--device', 'cpu', '--json', ...args]);
  const lines = stdout.split('\n').map((line) => JSON.parse(line) as CheckResult & { type?: string });
  return { exitCode, results: lines.filter(({ type }) => type === 'check') };
}

test('fixtures: what fits is compared with torch, what does not is skipped with the count', async () => {
  const { exitCode, results } = await check('--parts', 'fixtures', '--only', 'tied tp2', '--nproc', '2');
  expect(exitCode).toBe(0);
  const named = (verdict: string): string[] => results.filter((r) => r.verdict === verdict).map(({ name }) => name);
  expect(named('ok')).toContain('qwen3-tied tp2 pp1 dp1');
  const skipped = results.find(({ name }) => name === 'qwen3-tied tp2 pp2 dp1');
  expect(skipped).toMatchObject({ verdict: 'skipped', reason: 'needs 4 processes, 2 are here' });
  expect(results.find(({ verdict }) => verdict === 'ok')!.measures.map(({ what }) => what)).toEqual([
    'loss',
    'grad_norm',
  ]);
});

test('a trajectory that is off by a ten-thousandth fails', async () => {
  const from = join(FIXTURES, 'qwen3-tied');
  const to = join(folder, 'qwen3-tied');
  mkdirSync(to);
  for (const file of ['config.json', 'model.safetensors', 'tokens.jsonl', 'trajectory.json']) {
    writeFileSync(join(to, file), readFileSync(join(from, file)));
  }
  const trajectory = JSON.parse(readFileSync(join(to, 'trajectory.json'), 'utf8')) as { steps: { loss: number }[] };
  trajectory.steps.at(-1)!.loss *= 1.0001;
  writeFileSync(join(to, 'trajectory.json'), JSON.stringify(trajectory));
  const only = ['--parts', 'fixtures', '--only', 'qwen3-tied tp1 pp1 dp1', '--nproc', '1'];
  const { exitCode, results } = await check(...only, '--fixtures', folder);
  expect(exitCode).toBe(1);
  expect(results.filter(({ verdict }) => verdict === 'failed')).not.toEqual([]);
  expect(results.filter(({ verdict }) => verdict === 'ok')).toEqual([]);
});

test('bits and layouts of two processes', async () => {
  const { exitCode, results } = await check(
    '--parts',
    'bits,layouts',
    '--only',
    'tp2 pp1 dp1',
    '--nproc',
    '2',
    '--ranks-per-gpu',
    '2',
  );
  expect(exitCode).toBe(0);
  expect(results.map(({ part, verdict }) => [part, verdict])).toEqual([
    ['bits', 'ok'],
    ['layouts', 'ok'],
  ]);
});

test('a rank that dies ends the run, and a model that does not fit is refused', async () => {
  const { exitCode, results } = await check('--parts', 'failures', '--nproc', '2');
  expect(results.map(({ reason }) => reason).filter((reason) => !/needs 4|^null$/.test(String(reason)))).toEqual([]);
  expect(exitCode).toBe(0);
});

test('nothing that could be checked is no success; an unknown part is named', async () => {
  expect((await check('--parts', 'precision')).exitCode).toBe(1);
  const none = await mbridge(['bench', 'check', '--device', 'cpu', '--parts', 'bits', '--only', 'tp3']);
  expect(none).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("no check of bits has 'tp3'") as string });
  const { exitCode, stderr } = await mbridge(['bench', 'check', '--parts', 'fixture']);
  expect(exitCode).toBe(2);
  expect(stderr).toContain('no part fixture');
});

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test, vi } from 'vitest';
import { runRanks, type RunRanksOptions } from '../../src/testing/run-ranks.js';

const MODULE = join(import.meta.dirname, '../workers/ranks.mjs');

/** What this process holds of what ranks take. */
function held(): Record<string, unknown> {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    threads: readdirSync('/proc/self/task').length,
    files: readdirSync('/proc/self/fd').length,
    shared: maps.filter((line) => line.includes('/dev/shm')).length,
    named: readdirSync('/dev/shm').filter((name) => name.includes('mbridge')),
  };
}

// What the first threads of a process leave for the next ones.
beforeAll(() => runRanks(1, MODULE, { export: 'sum' }));

const failure = (code: string, message: RegExp): unknown =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

test('each rank computes with the others, and what it returns comes back', { timeout: 20_000 }, async () => {
  const options = { scale: 2, list: [1, 2] };
  const values = await runRanks(3, MODULE, { export: 'sum', options });
  expect(values).toEqual([0, 1, 2].map((rank) => ({ rank, size: 3, sum: 3, options, values: Float32Array.of(rank) })));
});

test.each([
  ['fails', 'throws', 'MB_PROGRAM', /^rank 1: a layer of 3 heads \(rank 0, 2: lost a peer\)$/],
  ['fails', 'exits', 'MB_WORKER_CRASHED', /^rank 1 crashed with exit code 3 \(rank 0, 2: lost a peer\)$/],
  ['fails', 'throws outside', 'MB_PROGRAM', /^rank 1: a timer went off/],
  ['failsEarly', 'leaves', 'MB_WORKER_CRASHED', /^rank 1 left with exit code 0 before its work was done/],
  ['failsEarly', 'never ends', 'MB_WORKER_CRASHED', /^rank 1: its function waits for a promise that nothing is left/],
  ['failsAlone', 'returns a function', 'MB_INTERNAL', /^rank 1: .* could not be cloned\. \(rank 0, 2: stopped\)$/],
])('a rank that %s and %s is named within a second', async (name, how, code, message) => {
  const before = held();
  const at = new Float64Array(new SharedArrayBuffer(8));
  const running = runRanks(3, MODULE, { export: name, options: { how, at } });
  await expect(running).rejects.toThrow(failure(code, message));
  expect(performance.timeOrigin + performance.now() - at[0]!).toBeLessThan(1000);
  // A thread that has ended is a moment longer in the kernel's list.
  await vi.waitFor(() => expect(held()).toEqual(before));
});

test('ranks that wait for each other are a time-out, which names them', async () => {
  const running = runRanks(2, MODULE, { export: 'deadlocks', timeoutSeconds: 0.5 });
  const message = /^rank [01]: barrier timed out: rank [01] has waited 0\.\d s for rank [01] \(in (barrier|no call)\)/;
  await expect(running).rejects.toThrow(failure('MB_COLLECTIVE_TIMEOUT', message));
});

test.each<[string, number, string | URL, RunRanksOptions, RegExp]>([
  ['no ranks', 0, MODULE, {}, /0 ranks/],
  ['half a rank', 1.5, MODULE, {}, /1\.5 ranks/],
  ['more than share memory', 65, MODULE, {}, /65 ranks/],
  ['a relative path', 1, './ranks.mjs', {}, /module \.\/ranks\.mjs/],
  ['a module without the function', 1, MODULE, {}, /ranks\.mjs exports no function runRank/],
])('%s cannot be run', async (_, count, module, options, message) => {
  await expect(runRanks(count, module, options)).rejects.toThrow(failure('MB_RANKS_ARGUMENT', message));
});

test('TypeScript runs where Node.js runs it, and is refused in words elsewhere', async () => {
  const module = new URL('typed-rank.ts', import.meta.url);
  if ('typescript' in process.features && process.features.typescript !== false) {
    expect(await runRanks(2, module)).toEqual([0, 1]);
  } else {
    const refused = { code: 'MB_RANKS_ARGUMENT', hint: expect.stringContaining('Node.js 22.18') as string };
    await expect(runRanks(2, module)).rejects.toThrow(expect.objectContaining(refused));
  }
});

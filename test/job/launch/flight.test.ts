import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../../recipes/qwen3.js';
import type { FlightRecord } from '../../../src/job/shared/flight-record.js';
import { runWorkers, type WorkersRun } from '../../helpers/run-workers.js';

process.setMaxListeners(40); // of launchers side by side

const SECONDS = String.raw`\d+(\.\d)? s`;
const WAIT = String.raw`ranks 0-1 wait in all_reduce #3 of all \[0,1,2\] \(64 f32, sum\)`;
const LAST = String.raw`its last was reduce_scatter #1 of dp \[0,2\], finished ${SECONDS} ago \(in the optimizer of update 17 for ${SECONDS}\)`;

/** What rank 2 of three does in the place of a collective: how the run ends, and who is said to wait in what. */
const HANGS = [
  { act: 'sleeps', code: 'MB_COLLECTIVE_TIMEOUT', said: `${WAIT}; rank 2 never entered it: ${LAST}` },
  { act: 'is stopped', code: 'MB_COLLECTIVE_TIMEOUT', said: `${WAIT}; rank 2 never entered it: ${LAST}` },
  { act: 'is killed', code: 'MB_WORKER_KILLED', said: `${WAIT}; rank 2 never entered it: ${LAST}` },
  {
    act: 'is stopped in it',
    code: 'MB_COLLECTIVE_TIMEOUT',
    said: String.raw`ranks 0-1 wait in all_reduce #3 of all \[0,1,2\] \(4194304 f32, sum\), which all have entered; rank 2 does not answer in it: its last was all_reduce #3 of all \[0,1,2\], entered ${SECONDS} ago and not finished \(in the optimizer of update 17 for ${SECONDS}\)`,
  },
  {
    act: 'waits elsewhere',
    code: 'MB_COLLECTIVE_TIMEOUT',
    said: String.raw`${WAIT}; rank 2 waits in barrier #2 of dp \[0,2\]: they wait for each other`,
  },
  {
    act: 'does not send',
    code: 'MB_COLLECTIVE_TIMEOUT',
    said: String.raw`rank 0 waits in p2p #1 of dp \[0,2\] \(receive #1 from rank 2\); rank 2 never sent it: ${LAST}`,
  },
];

function run(act: string, ranks: number, timeoutS: number, checks = false): Promise<WorkersRun> {
  const config = qwen3TinyPretrainConfig({});
  config.dist.check_collectives = checks;
  return runWorkers('flight', config, ranks, { act, culprit: ranks - 1, timeoutS });
}

test('who waits in what, and who never came, is said of a rank that sleeps, is stopped, is stopped in the call, is killed, or waits elsewhere', async () => {
  const runs = await Promise.all(HANGS.map(({ act }) => run(act, 3, 5)));
  for (const [i, { act, code, said }] of HANGS.entries()) {
    const { log, exitCode, runDir } = runs[i] as WorkersRun;
    expect(log, act).toMatch(RegExp(`\n  ${said}\n`));
    expect(log, act).toContain(`error ${code}: `);
    expect(exitCode, act).toBe(code === 'MB_WORKER_KILLED' ? 5 : 6);
    const result = JSON.parse(readFileSync(join(runDir, 'result.json'), 'utf8')) as { error: { waits: string } };
    expect(result.error.waits, act).toMatch(RegExp(`^${said}$`));
    const record = JSON.parse(readFileSync(join(runDir, 'rank-2', 'flight.json'), 'utf8')) as FlightRecord;
    expect(record, act).toMatchObject({ rank: 2, step: 17, phase: 'the optimizer' });
    const all = record.groups.find(({ name }) => name === 'all');
    expect(all?.ranks, act).toEqual([0, 1, 2]);
    expect(
      all?.calls.map(({ op, number, state }) => `${op} ${number} ${state}`),
      act,
    ).toEqual([
      ...['create 0 finished', 'all_reduce 1 finished', 'all_reduce 2 finished'],
      ...(act === 'is stopped in it' ? ['all_reduce 3 entered'] : []),
    ]);
  }
}, 60_000);

/** What rank 1 of two calls in the place of an all-reduce, in the words of the error. */
const OURS = 'rank 0 called all_reduce of 64 f32, sum';
const MISMATCHES = [
  { act: 'calls another op', said: [OURS, 'rank 1 called broadcast of 64 f32 from rank 0'] },
  { act: 'calls another size', said: [OURS, 'rank 1 called all_reduce of 32 f32, sum'] },
  { act: 'calls another dtype', said: [OURS, 'rank 1 called all_reduce of 64 bf16, sum'] },
  { act: 'calls an all to all', said: [OURS, 'rank 1 called all_to_all'] },
  { act: 'sends other parts', said: ['all_to_all: rank 0 sends 32 elements to rank 1, which expects 16'] },
  { act: 'sends', said: [OURS, 'rank 1 called p2p of 256 bytes'] },
  { act: 'receives', said: [OURS, 'rank 1 called p2p of 256 bytes'] },
  { act: 'expects another size', said: ['p2p: rank 0 sends 256 bytes to rank 1, which expects 128'] },
];

test('with dist.check_collectives a call that differs is an error that names both, and other calls go on', async () => {
  // The time-out is none that this test could wait for.
  const [alike, ...runs] = await Promise.all(
    ['calls the same', ...MISMATCHES.map(({ act }) => act)].map((act) => run(act, 2, 600, true)),
  );
  expect(alike?.exitCode, alike?.log).toBe(0);
  for (const [i, { act, said }] of MISMATCHES.entries()) {
    const { log, exitCode, runDir } = runs[i] as WorkersRun;
    // Each rank that finds it begins with its own call; the first to say so is shown.
    const [one, other] = [said, [...said].reverse()].map((parts) => parts.join(', but '));
    expect(log, act).toMatch(
      RegExp(String.raw`^error MB_COLLECTIVE_MISMATCH: (${one}|${other}) \(group (all|dp) \[0,1\]\)\n`, 'm'),
    );
    expect(exitCode, act).toBe(1);
    expect(existsSync(join(runDir, 'rank-0', 'flight.json')), act).toBe(false);
  }
}, 60_000);

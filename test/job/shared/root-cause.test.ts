import { expect, it } from 'vitest';
import { findRootCause } from '../../../src/job/shared/root-cause.js';
import type { WorkerExit } from '../../../src/job/shared/worker-exit.js';
import type { WorkerReport } from '../../../src/job/shared/worker-report.js';

type Fate = Partial<Omit<WorkerExit, 'report'>> & { report?: Partial<WorkerReport> };

function exits(...fates: Fate[]): WorkerExit[] {
  return fates.map((fate, rank) => {
    const { report, ...rest } = fate;
    const base = {
      rank,
      timeMs: 100,
      code: 0,
      signal: null,
      done: false,
      stopped: 'no' as const,
      ended: false,
      step: 0,
      stderrTail: [],
    };
    const full = { rank, time: '', time_ms: 100, step: 0, code: 'MB_X', exit_code: 3, message: 'x', ...report };
    return { ...base, ...rest, ...(report === undefined ? {} : { report: full }) };
  });
}

const DONE: Fate = { done: true };
const PEER: Fate = { code: 5, report: { code: 'MB_PEER_LOST', exit_code: 5, time_ms: 90 } };
const KILLED: Fate = { code: null, signal: 'SIGKILL' };
const STOPPED: Fate = { ...KILLED, ended: true };

const CASES: [name: string, exits: WorkerExit[], expected: object | undefined][] = [
  ['all done', exits(DONE, DONE), undefined],
  [
    'the earliest report',
    exits({ report: { time_ms: 50 } }, { report: { time_ms: 49 } }),
    { rank: 1, others: 'rank 0: failed as well (MB_X)' },
  ],
  [
    'a death before a report',
    exits({ report: { time_ms: 50 } }, { ...KILLED, timeMs: 40 }),
    { rank: 1, exitCode: 5, code: 'MB_WORKER_KILLED' },
  ],
  [
    'a death, though its peers noticed it earlier than we did',
    exits(PEER, PEER, KILLED, PEER),
    { rank: 2, others: 'rank 0-1, 3: lost a peer' },
  ],
  [
    'a report, though another rank lost a peer earlier',
    exits(PEER, { report: { time_ms: 95 } }),
    { rank: 1, exitCode: 3 },
  ],
  [
    'a hang is told by those that waited, not by the one we ended',
    exits(STOPPED, { report: { code: 'MB_COLLECTIVE_TIMEOUT', exit_code: 6 } }),
    { rank: 1, exitCode: 6, others: 'rank 0: stopped' },
  ],
  ['only lost peers', exits(DONE, PEER), { rank: 1, exitCode: 5, code: 'MB_PEER_LOST', others: 'rank 0: done' }],
  ['all were ended by us', exits(STOPPED, STOPPED), { rank: 0, code: 'MB_WORKER_KILLED', others: 'rank 1: stopped' }],
  [
    'done, but with a bad exit code',
    exits(DONE, { done: true, code: 139 }),
    { rank: 1, code: 'MB_WORKER_CRASHED', exitCode: 5 },
  ],
  ['done, but we had to force its exit', exits({ ...STOPPED, done: true }), undefined],
  [
    'never started',
    exits(DONE, {
      code: null,
      spawnError: Object.assign(new Error('spawn EAGAIN'), { code: 'EAGAIN', syscall: 'spawn' }),
    }),
    { rank: 1, code: 'MB_SPAWN', exitCode: 4, hint: expect.stringContaining('ulimit -u') as string },
  ],
  [
    'a thread of Node that could not be started: it aborts without a word',
    exits(DONE, { code: null, signal: 'SIGABRT', step: 0, stderrTail: [] }),
    { rank: 1, code: 'MB_SPAWN', exitCode: 4, hint: expect.stringContaining('ulimit') as string },
  ],
  [
    'a limit that only the last words of a crash name',
    exits(DONE, {
      code: null,
      signal: 'SIGABRT',
      stderrTail: ['terminate called', '  what():  Resource temporarily unavailable'],
    }),
    { rank: 1, code: 'MB_SYSTEM', exitCode: 4, hint: expect.stringContaining('ulimit -u') as string },
  ],
  [
    'a bug keeps its stack',
    exits({ report: { exit_code: 1, stack: 'Error: x\n at y' } }),
    { exitCode: 1, stack: 'Error: x\n at y' },
  ],
];
it.each(CASES)('%s', (_, given, expected) => {
  const cause = findRootCause(given);
  if (expected === undefined) expect(cause).toBeUndefined();
  else expect(cause).toMatchObject(expected);
});

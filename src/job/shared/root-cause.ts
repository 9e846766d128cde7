import { EXIT } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import { faultSaid, systemError } from '../../base/system-error.js';
import type { WorkerExit } from './worker-exit.js';
import { PEER_LOST } from './worker-report.js';

/** Why a run failed: the rank that was first, and what became of the others. */
export interface RootCause {
  rank: number;
  step: number;
  code: string;
  exitCode: number;
  message: string;
  hint?: string;
  /** For bugs. */
  stack?: string;
  /** For crashes without a report: the last lines of stderr. */
  stderrTail: string[];
  /** One line about the other ranks; empty if there are none. */
  others: string;
}

/**
 * The first rank by time that failed by itself. A rank that lost a peer, or that the launcher ended, is only named if no
 * other failed. Undefined when every rank was done.
 */
export function findRootCause(exits: readonly WorkerExit[]): RootCause | undefined {
  const failed = exits.filter((exit) => !isOrderly(exit)).sort((a, b) => failureTime(a) - failureTime(b));
  const first = failed.find((exit) => isPrimary(exit)) ?? failed.find((exit) => exit.report !== undefined) ?? failed[0];
  if (first === undefined) return undefined;
  return { ...describe(first), others: describeOthers(exits, first.rank) };
}

/** Its work was done, and its exit was clean or had to be forced. */
export function isOrderly(exit: WorkerExit): boolean {
  return exit.done && (exit.code === 0 || exit.ended);
}

function isPrimary(exit: WorkerExit): boolean {
  return exit.report === undefined ? !exit.ended : exit.report.code !== PEER_LOST;
}

function failureTime(exit: WorkerExit): number {
  return exit.report?.time_ms ?? exit.timeMs;
}

function describe(exit: WorkerExit): Omit<RootCause, 'others'> {
  const { rank, step, report, signal, code, spawnError, stderrTail } = exit;
  const name = `rank ${rank}`;
  if (report !== undefined) {
    const { message, hint, stack } = report;
    return {
      rank,
      step,
      code: report.code,
      exitCode: report.exit_code,
      message,
      ...(hint === undefined ? {} : { hint }),
      ...(stack === undefined ? {} : { stack }),
      stderrTail: [],
    };
  }
  const crash = { rank, step, exitCode: EXIT.worker, stderrTail };
  if (spawnError !== undefined) {
    const fault = systemError(spawnError, { code: 'MB_SPAWN', what: `start ${name}` });
    const message = fault?.message ?? `cannot start ${name}: ${spawnError.message}`;
    const hint = fault?.hint === undefined ? {} : { hint: fault.hint };
    return { ...crash, exitCode: EXIT.environment, code: 'MB_SPAWN', message, ...hint };
  }
  // A program that meets a limit before or outside of what it can catch says so with its last words.
  const said = exit.ended || code === 0 ? undefined : faultSaid(stderrTail);
  if (said !== undefined) {
    const message = `${name} ended: ${said.reason}`;
    return { ...crash, exitCode: EXIT[said.kind], code: 'MB_SYSTEM', message, hint: said.hint };
  }
  if (exit.lost === true) {
    return {
      ...crash,
      code: 'MB_WORKER_LOST',
      message: `${name} was lost: killed, crashed, or cut off`,
      hint: 'what started the ranks says how it ended, and its own log how far it came',
    };
  }
  // Node says nothing where it cannot start its own threads.
  if (signal === 'SIGABRT' && step === 0 && stderrTail.length === 0) {
    const message = `${name} ended as it started (SIGABRT), without a word: a thread may not have been started`;
    const hint = 'look at the limits of processes, threads and memory: ulimit -a, pids.max of the cgroup';
    return { ...crash, exitCode: EXIT.environment, code: 'MB_SPAWN', message, hint };
  }
  if (signal !== null) {
    const memory = signal === 'SIGKILL' && !exit.ended;
    return {
      ...crash,
      code: 'MB_WORKER_KILLED',
      message: `${name} was killed by ${signal}`,
      ...(memory ? { hint: 'if you did not kill it, the system may have run out of memory (see dmesg)' } : {}),
    };
  }
  const how = code === 0 ? 'left with exit code 0 before its work was done' : `crashed with exit code ${code}`;
  return { ...crash, code: 'MB_WORKER_CRASHED', message: `${name} ${how}` };
}

function describeOthers(exits: readonly WorkerExit[], cause: number): string {
  const groups = new Map<string, number[]>();
  for (const exit of exits) {
    if (exit.rank === cause) continue;
    const fate = fateOf(exit);
    groups.set(fate, [...(groups.get(fate) ?? []), exit.rank]);
  }
  return [...groups].map(([fate, ranks]) => `rank ${formatRanks(ranks)}: ${fate}`).join('; ');
}

function fateOf(exit: WorkerExit): string {
  if (exit.report?.code === PEER_LOST) return 'lost a peer';
  if (exit.report !== undefined) return `failed as well (${exit.report.code})`;
  if (exit.ended) return 'stopped';
  if (isOrderly(exit)) return 'done';
  if (exit.lost === true) return 'lost';
  return exit.signal === null ? `exit code ${exit.code}` : `killed by ${exit.signal}`;
}

import { EXIT, errorText } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import { formatEnding, savedBefore, type Ending } from '../shared/ending-text.js';
import { errorFacts } from '../shared/error-facts.js';
import { formatFailure } from '../shared/failure-text.js';
import { EVENT } from '../shared/messages.js';
import { reportError } from '../shared/report-error.js';
import { findRootCause, type RootCause } from '../shared/root-cause.js';
import { signalExitCode, type StopSignal } from '../shared/stop-signals.js';
import type { LaunchResult } from './job.js';
import { goingOnText, pauseBefore, type GoingOn, type Restarts } from './restarts.js';
import type { RunOutput } from './run-output.js';
import type { Supervision } from './supervisor.js';

/** How an attempt ended; `again` where another follows. */
export interface Attempted extends LaunchResult {
  readonly again?: {
    readonly pauseS: number;
    readonly next: GoingOn;
    /** Where the pause was ended by a signal. */
    readonly stopped: (signal: StopSignal) => LaunchResult;
  };
}

export interface Conclusion {
  /** Where a rank's log and stderr are. */
  readonly filesOf: (rank: number) => { log: string; stderr: string };
  readonly supervision: Supervision;
  readonly runDir: string;
  readonly output: RunOutput;
  readonly how: Ending;
  /** Who waited in what as the run failed with this exit code, in a sentence. */
  readonly waited: (exitCode: number) => string | undefined;
  /** Of the restart that would follow, from 1. */
  readonly attempt: number;
  /** Failures in a row without a new checkpoint or copy in between. */
  readonly idle: number;
  readonly restarts: Restarts | undefined;
  /** What a restart would go on from. */
  readonly next: GoingOn | undefined;
}

/** Prints how the run ended, or that it begins again. */
export function conclude({
  supervision,
  runDir,
  filesOf,
  output,
  how,
  waited,
  attempt,
  idle,
  restarts,
  next,
}: Conclusion): Attempted {
  const { exits, stubborn, givenUp } = supervision;
  const { signal } = how;
  const cause = givenUp === undefined ? findRootCause(exits) : undefined;
  const ending = { run_dir: runDir, wall_s: Math.round(how.wallS * 1000) / 1000 };
  const end = (exitCode: number, facts: Record<string, unknown>): LaunchResult => {
    output.result({ ok: exitCode === EXIT.ok, exit_code: exitCode, ...facts, ...ending });
    return { exitCode, runDir, result: output.closing };
  };
  // What memory alone has ends with this process.
  const lost = next?.unsaved === true ? [`update ${next.step} was in memory alone, and is lost`] : [];
  const stopped = (by: StopSignal): LaunchResult => {
    const result = end(signalExitCode(by), { signal: by, saved: how.saved?.folder ?? null });
    output.note([...lost, formatEnding({ ...how, signal: by })].join('\n'));
    return result;
  };
  const fail = (text: string, exitCode: number, found: Parameters<typeof errorFacts>[0], retried = true): Attempted => {
    const error = errorFacts(found, exitCode);
    const pauseS = signal === 'no' && retried ? pauseBefore(attempt, idle, exitCode, restarts) : null;
    if (pauseS === null || next === undefined) {
      output.note([text, ...lost.map((line) => `  ${line}`), ...savedBefore(how)].join('\n'));
      return end(exitCode, { error });
    }
    output.note(`${text}\nrestart ${attempt} of ${restarts?.most} in ${pauseS} s, from ${goingOnText(next)}`);
    const { step, from } = next;
    const facts = { attempt, of: restarts?.most, wait_s: pauseS, step, from, exit_code: exitCode, error };
    output.fact({ type: EVENT.restart, ...facts });
    return { exitCode, runDir, result: output.closing, again: { pauseS, stopped, next } };
  };

  // After a stop was asked for, ranks that were killed are no failure; one that reported an error of its own is.
  if (cause !== undefined && (signal === 'no' || isOwnFailure(cause, exits))) {
    const files = filesOf(cause.rank);
    const { rank, step, code, message, hint, exitCode } = cause;
    const waits = waited(exitCode);
    const text = formatFailure(cause, files, output.paint, waits);
    return fail(text, exitCode, { rank, step, code, message, hint, waits });
  }
  if (givenUp !== undefined) {
    const { code, message, hint, exitCode, again } = givenUp;
    const waits = waited(exitCode);
    const more = waits === undefined ? '' : `\n  ${waits}`;
    const text = `${errorText({ code, message, hint }, output.paint.red)}${more}`;
    return fail(text, exitCode, { code, message, hint, waits }, again);
  }
  if (stubborn.length > 0) output.warn(`rank ${formatRanks(stubborn)} did not end in time and was killed`);
  // Work of hours was not given up for lines that a full disk had no room for, but it is said.
  const complete = output.refused === undefined ? EXIT.ok : reportError(output.refused, false);
  if (signal !== 'no') return stopped(signal);
  const result = end(complete, {});
  output.note(formatEnding(how));
  return result;
}

function isOwnFailure(cause: RootCause, exits: Supervision['exits']): boolean {
  const exit = exits.find(({ rank }) => rank === cause.rank);
  return exit !== undefined && !exit.ended && cause.code !== 'MB_PEER_LOST';
}

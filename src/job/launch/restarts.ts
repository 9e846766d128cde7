import { isRetryable } from '../../base/errors.js';
import type { RunConfig } from '../../config/schema.js';
import type { SavedCheckpoint } from '../shared/messages.js';
import { listenForSignals, type StopSignal } from '../shared/stop-signals.js';

/** How often a run that fails begins again, and as what. */
export interface Restarts {
  /** At most; `--max-restarts`. */
  readonly most: number;
  /**
   * The configuration that goes on from the run's last checkpoint, and the update of that; null where it has none.
   * `saved` is the last that was heard of.
   */
  readonly goOn: (
    config: RunConfig,
    saved: SavedCheckpoint | undefined,
  ) => Promise<{ config: RunConfig; step: number | null }>;
}

/** What an attempt goes on from. */
export interface GoingOn {
  readonly config: RunConfig;
  readonly from: 'start' | 'checkpoint' | 'memory';
  /** The last update of what it goes on from; 0 at the start. */
  readonly step: number;
  /** Whether memory alone has that update, of a run that saves. */
  readonly unsaved?: boolean;
}

/**
 * What the next attempt goes on from: the copies in memory, unless there is a newer checkpoint.
 * @param copied the update that all ranks have a whole copy of
 */
export async function goingOn(
  { goOn }: Restarts,
  config: RunConfig,
  saved: SavedCheckpoint | undefined,
  copied: number | null,
): Promise<GoingOn> {
  const disk = await goOn(config, saved);
  if (copied !== null && copied >= (disk.step ?? 0)) {
    const unsaved = copied > (disk.step ?? 0) && config.checkpoint.save !== null;
    return { config: disk.config, from: 'memory', step: copied, unsaved };
  }
  if (disk.step === null) return { config: disk.config, from: 'start', step: 0 };
  return { config: disk.config, from: 'checkpoint', step: disk.step };
}

/** As people read it. */
export function goingOnText({ from, step }: GoingOn): string {
  if (from === 'start') return 'the start';
  return `update ${step}${from === 'memory' ? ' in memory' : ''}`;
}

/**
 * What is said as a signal comes.
 * @param held update that only memory has, and that ranks begin once more to save; null where there is none
 */
export function stopText(signal: StopSignal, killed: boolean, graceS: number, held: number | null): string {
  if (killed) return `${signal}: killed all workers`;
  const most = `(at most ${graceS} s)`;
  return held === null
    ? `${signal}: workers stop after their current step ${most}; Ctrl-C again to kill them now`
    : `${signal}: only memory has update ${held}: the ranks begin once more to save it ${most}; Ctrl-C again to lose it`;
}

const FIRST_PAUSE_S = 1;
const LONGEST_PAUSE_S = 60;

/**
 * Seconds to wait before restart `attempt` (from 1); null where there is none.
 * @param idle failures in a row, this one among them, without a new checkpoint or copy in between: the pause doubles with each
 */
export function pauseBefore(
  attempt: number,
  idle: number,
  exitCode: number,
  restarts: Pick<Restarts, 'most'> | undefined,
): number | null {
  if (restarts === undefined || attempt > restarts.most || !isRetryable(exitCode)) return null;
  return Math.min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (idle - 1));
}

/** Waits, or returns the signal that ended the wait. */
export async function pause(
  seconds: number,
  { listen = listenForSignals }: { listen?: typeof listenForSignals } = {},
): Promise<StopSignal | null> {
  return new Promise((resolve) => {
    const end = (signal: StopSignal | null): void => {
      clearTimeout(timer);
      unlisten();
      resolve(signal);
    };
    const timer = setTimeout(() => {
      end(null);
    }, seconds * 1000);
    const unlisten = listen(end);
  });
}

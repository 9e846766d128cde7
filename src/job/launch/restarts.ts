import { EXIT } from '../../base/errors.js';
import type { RunConfig } from '../../config/schema.js';
import type { SavedCheckpoint } from '../shared/messages.js';
import { listenForSignals, type StopSignal } from '../shared/stop-signals.js';

/** How often a run that fails begins again, and as what. */
export interface Restarts {
  /** At most; `--max-restarts`. */
  readonly most: number;
  /** The configuration that goes on from the last checkpoint, if there is one; `saved` is the last that was heard of. */
  readonly goOn: (config: RunConfig, saved: SavedCheckpoint | undefined) => Promise<RunConfig>;
}

/** What may be gone at the next try: a process or its machine failed, or a collective hung. The rest stays as it is. */
const RETRIED: readonly number[] = [EXIT.worker, EXIT.hang];
const FIRST_PAUSE_S = 1;
const LONGEST_PAUSE_S = 60;

/**
 * Seconds to wait before restart `attempt` (from 1); null where there is none.
 * @param idle failures in a row, this one among them, without a new checkpoint in between: the pause doubles with each
 */
export function pauseBefore(
  attempt: number,
  idle: number,
  exitCode: number,
  restarts: Pick<Restarts, 'most'> | undefined,
): number | null {
  if (restarts === undefined || attempt > restarts.most || !RETRIED.includes(exitCode)) return null;
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

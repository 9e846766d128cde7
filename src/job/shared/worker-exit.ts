import type { StopSignal } from './stop-signals.js';
import type { WorkerReport } from './worker-report.js';

/** How one worker ended. */
export interface WorkerExit {
  rank: number;
  /** Unix milliseconds. */
  timeMs: number;
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Why it could not be started. */
  spawnError?: Error;
  /** Its connection ended without a word; only whoever started it knows how its process ended. */
  lost?: boolean;
  /** It said that its part of the run was done. */
  done: boolean;
  /** The signal that made it stop early, if it said so. */
  stopped: 'no' | StopSignal;
  /** The launcher had already told it to end, or killed it: its end is a consequence. */
  ended: boolean;
  /** Last step it had begun; 0 before the first. */
  step: number;
  report?: WorkerReport;
  /** Last lines of its stderr. */
  stderrTail: string[];
}

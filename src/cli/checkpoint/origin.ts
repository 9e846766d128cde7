import { dirname, resolve } from 'node:path';
import { readRun, readSteps } from '../../job/shared/run-list.js';

/** Where a checkpoint comes from. */
export interface CheckpointOrigin {
  /** Folder of the run that it lies in; null where it lies in none. */
  readonly run: string | null;
  /** Of its last update, by the metrics of that run. */
  readonly loss: number | null;
}

/** What the run's folder tells, where the checkpoint lies in `<run>/checkpoints`. */
export function originOf(folder: string, step: number): CheckpointOrigin {
  const run = dirname(dirname(resolve(folder)));
  if (readRun(run) === undefined) return { run: null, loss: null };
  const loss = readSteps(run).get(step)?.loss;
  return { run, loss: typeof loss === 'number' ? loss : null };
}

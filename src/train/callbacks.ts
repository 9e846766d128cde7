import type { EvaluationEvent, SavedCheckpoint, StepEvent, WorkerEvent } from '../job/shared/messages.js';
import type { WorkerContext } from '../job/worker/context.js';
import type { Run } from './run.js';
import type { Every, TrainResult } from './train.js';

/**
 * What a program does as a run trains. A failure of its own ends the run, as MB_PROGRAM with its stack. A promise is
 * awaited where every rank calls; the others report, and the run does not wait for what they start.
 */
export interface TrainingCallbacks {
  /** On every rank, once all is built and loaded, before the first update. */
  readonly onTrainStart?: (run: Run) => void | Promise<void>;
  /** Every so many updates, on every rank, while the device works on: see {@link Every}. */
  readonly every?: readonly (Omit<Every, 'act'> & { readonly act: (step: number, run: Run) => void | Promise<void> })[];
  /** On the rank that reports: an update that is shown (`logger.log_interval`), one update late. */
  readonly onStep?: (event: StepEvent, run: Run) => void;
  /** On the rank that reports: a validation set, evaluated. */
  readonly onEvaluation?: (event: EvaluationEvent, run: Run) => void;
  /** On one rank: a checkpoint is whole. */
  readonly onSave?: (saved: SavedCheckpoint, run: Run) => void;
  /** On every rank, after the last update and its save, while the model is still there. */
  readonly onTrainEnd?: (result: TrainResult, run: Run) => void | Promise<void>;
}

/** `context` in a run that tells `callbacks` what it tells the world. */
export function withCallbacks(context: WorkerContext, callbacks: TrainingCallbacks, run: () => Run): WorkerContext {
  return {
    ...context,
    emit: (event: WorkerEvent) => {
      context.emit(event);
      if (event.type === 'step') callbacks.onStep?.(event as StepEvent, run());
      if (event.type === 'evaluation') callbacks.onEvaluation?.(event as EvaluationEvent, run());
    },
    saved: (checkpoint: SavedCheckpoint) => {
      context.saved(checkpoint);
      callbacks.onSave?.(checkpoint, run());
    },
  };
}

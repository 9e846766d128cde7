import type { ComputeAction, ScheduleShape } from './actions.js';

/** An action and the pipeline rank that runs it. */
export interface PlacedAction {
  readonly rank: number;
  readonly action: ComputeAction;
}

type Pipeline = Pick<ScheduleShape, 'stages' | 'chunks'>;

/** The model stage that a rank's chunk is: stages go round the ranks, once a chunk. */
export function stageOf(pipeline: Pipeline, rank: number, chunk: number): number {
  return chunk * pipeline.stages + rank;
}

/** Whose result an action needs from another rank: none for the first stage's forward and the last stage's backward. */
export function inputOf(pipeline: Pipeline, rank: number, action: ComputeAction): PlacedAction | undefined {
  return neighbour(pipeline, rank, action, action.kind === 'forward' ? -1 : 1);
}

/** What an action's result is the input of. */
export function outputOf(pipeline: Pipeline, rank: number, action: ComputeAction): PlacedAction | undefined {
  return neighbour(pipeline, rank, action, action.kind === 'forward' ? 1 : -1);
}

function neighbour(pipeline: Pipeline, rank: number, action: ComputeAction, step: 1 | -1): PlacedAction | undefined {
  const { stages, chunks } = pipeline;
  const stage = stageOf(pipeline, rank, action.chunk) + step;
  if (stage < 0 || stage >= stages * chunks) return undefined;
  return {
    rank: stage % stages,
    action: { kind: action.kind, microBatch: action.microBatch, chunk: Math.floor(stage / stages) },
  };
}

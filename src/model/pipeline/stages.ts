import { MbridgeError } from '../../base/errors.js';
import { stageOf } from './stage-flow.js';

export interface BalanceRequest {
  readonly numLayers: number;
  /** Pipeline ranks. */
  readonly stages: number;
  /** Cost of one layer, of the head (last stage) and of the embedding (first stage), in one unit. */
  readonly layerFlops: number;
  readonly headFlops: number;
  readonly embeddingFlops: number;
  /** Layers of the first and last stage set by hand; the rest is balanced. */
  readonly first?: number | undefined;
  readonly last?: number | undefined;
}

/** Layers [firstLayer, firstLayer + layers) that are chunk `chunk` of pipeline rank `rank`. */
export interface StageLayers {
  readonly rank: number;
  readonly chunk: number;
  readonly firstLayer: number;
  readonly layers: number;
}

/**
 * Layers of each pipeline stage such that the most expensive stage is as cheap as it can be; every stage has at least
 * one. Each further layer goes where it costs least, the earliest such stage first, so that ties put layers early.
 * @throws MbridgeError MB_STAGES_SIZE, MB_STAGES_TOO_MANY, MB_STAGES_BY_HAND
 */
export function balanceStages(request: BalanceRequest): number[] {
  const { numLayers, stages, layerFlops, headFlops, embeddingFlops } = request;
  checkCounts({ numLayers, stages });
  for (const [what, value] of Object.entries({ layerFlops, headFlops, embeddingFlops })) {
    if (!(value >= 0 && value < Infinity) || (what === 'layerFlops' && value === 0)) {
      throw stageError('SIZE', `${what} must be a positive number, got ${value}`);
    }
  }
  checkEnough(numLayers, stages);
  const fixed = fixedLayers(request);
  const layers = fixed.map((count) => count ?? 1);
  const cost = layers.map((count) => count * layerFlops);
  cost[0]! += embeddingFlops;
  cost[stages - 1]! += headFlops;
  const free = layers.map((_, stage) => stage).filter((stage) => fixed[stage] === undefined);
  for (let left = numLayers - sum(layers); left > 0; left--) {
    const cheapest = free.reduce((best, stage) => (cost[stage]! < cost[best]! ? stage : best));
    layers[cheapest]!++;
    cost[cheapest]! += layerFlops;
  }
  return layers;
}

/**
 * The layers of every model stage, in model order.
 * @param perStage layers of each pipeline rank, from {@link balanceStages} (one chunk a rank)
 */
export function stageLayers(perStage: readonly number[]): StageLayers[] {
  let firstLayer = 0;
  return perStage.map((layers, rank) => {
    const stage = { rank, chunk: 0, firstLayer, layers };
    firstLayer += layers;
    return stage;
  });
}

/**
 * The layers of every model stage, in model order, for interleaved stages: chunk c of rank p is stage c * stages + p,
 * all of the same size.
 * @throws MbridgeError MB_STAGES_SIZE, MB_STAGES_TOO_MANY, MB_STAGES_INTERLEAVED
 */
export function interleavedStageLayers(numLayers: number, stages: number, chunks: number): StageLayers[] {
  checkCounts({ numLayers, stages, chunks });
  checkEnough(numLayers, stages * chunks);
  if (numLayers % (stages * chunks) !== 0) {
    throw stageError(
      'INTERLEAVED',
      `${numLayers} layers cannot be divided into ${stages} x ${chunks} equal interleaved stages`,
      'change virtual_pipeline_model_parallel_size or pipeline_model_parallel_size, or leave the former unset',
    );
  }
  const layers = numLayers / (stages * chunks);
  const result: StageLayers[] = [];
  for (let chunk = 0; chunk < chunks; chunk++) {
    for (let rank = 0; rank < stages; rank++) {
      result.push({ rank, chunk, firstLayer: stageOf({ stages, chunks }, rank, chunk) * layers, layers });
    }
  }
  return result;
}

function fixedLayers({ numLayers, stages, first, last }: BalanceRequest): (number | undefined)[] {
  const fixed = new Array<number | undefined>(stages).fill(undefined);
  const byHand = { num_layers_in_first_pipeline_stage: first, num_layers_in_last_pipeline_stage: last };
  for (const [key, value] of Object.entries(byHand)) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) {
      throw stageError('BY_HAND', `${key} must be an integer of at least 1, got ${value}`);
    }
  }
  if (stages === 1 && first !== undefined && last !== undefined && first !== last) {
    throw stageError('BY_HAND', `the only pipeline stage cannot have both ${first} and ${last} layers`);
  }
  if (first !== undefined) fixed[0] = first;
  if (last !== undefined) fixed[stages - 1] = last;
  const free = fixed.filter((count) => count === undefined).length;
  const set = sum(fixed.map((count) => count ?? 0));
  if (set + free > numLayers || (free === 0 && set !== numLayers)) {
    throw stageError(
      'BY_HAND',
      `${set} layers set by hand leave ${numLayers - set} of ${numLayers} for ${free} other pipeline stages`,
      'change num_layers_in_first_pipeline_stage or num_layers_in_last_pipeline_stage',
    );
  }
  return fixed;
}

function checkCounts(counts: Record<string, number>): void {
  for (const [what, value] of Object.entries(counts)) {
    if (!Number.isSafeInteger(value) || value < 1) throw stageError('SIZE', `${what} must be at least 1, got ${value}`);
  }
}

function checkEnough(numLayers: number, stages: number): void {
  if (numLayers >= stages) return;
  throw stageError(
    'TOO_MANY',
    `${stages} pipeline stages need at least as many layers, the model has ${numLayers}`,
    'lower pipeline_model_parallel_size or virtual_pipeline_model_parallel_size',
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function stageError(code: string, message: string, hint?: string): MbridgeError {
  return new MbridgeError('config', `MB_STAGES_${code}`, message, hint === undefined ? {} : { hint });
}

import { MbridgeError } from '../../base/errors.js';
import type { ComputeAction, ScheduleShape } from './actions.js';

/**
 * The forwards and backwards of every pipeline rank in order, without communication.
 * @throws MbridgeError when the shape has no schedule
 */
export function computeOrder(shape: Required<ScheduleShape>): ComputeAction[][] {
  checkShape(shape);
  return Array.from({ length: shape.stages }, (_, rank) => rankOrder(shape, rank));
}

/**
 * Forwards before the first backward on a rank: the depth of the pipeline behind it (1F1B), or twice that plus the
 * forwards of the earlier chunks of a group (interleaved), capped by what there is to do.
 */
export function warmupForwards(shape: ScheduleShape, rank: number): number {
  const { stages, chunks, microBatches, forwardOnly } = shape;
  const total = microBatches * chunks;
  if (forwardOnly === true) return total;
  const behind = stages - rank - 1;
  return Math.min(chunks === 1 ? behind : 2 * behind + (chunks - 1) * stages, total);
}

function rankOrder(shape: Required<ScheduleShape>, rank: number): ComputeAction[] {
  const total = shape.microBatches * shape.chunks;
  const warmup = warmupForwards(shape, rank);
  const order: ComputeAction[] = [];
  for (let k = 0; k < warmup; k++) order.push(nth(shape, 'forward', k));
  for (let k = warmup; k < total; k++) {
    order.push(nth(shape, 'forward', k), nth(shape, 'backward', k - warmup));
  }
  if (!shape.forwardOnly) {
    for (let k = total - warmup; k < total; k++) order.push(nth(shape, 'backward', k));
  }
  return order;
}

/** Groups of P micro-batches go through chunk 0, then chunk 1, ...; backwards take the chunks from the last. */
function nth(shape: ScheduleShape, kind: ComputeAction['kind'], k: number): ComputeAction {
  const { stages, chunks } = shape;
  const group = Math.floor(k / (stages * chunks));
  const chunk = Math.floor(k / stages) % chunks;
  return {
    kind,
    microBatch: group * stages + (k % stages),
    chunk: kind === 'forward' ? chunk : chunks - 1 - chunk,
  };
}

function checkShape({ stages, chunks, microBatches }: ScheduleShape): void {
  for (const [what, value] of Object.entries({ stages, chunks, microBatches })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new MbridgeError('config', 'MB_SCHEDULE_SIZE', `a schedule needs ${what} >= 1, got ${value}`);
  }
  if (chunks === 1) return;
  if (stages === 1) {
    throw new MbridgeError(
      'config',
      'MB_SCHEDULE_SINGLE_STAGE',
      `${chunks} model chunks a rank need more than one pipeline stage`,
      {
        hint: 'leave virtual_pipeline_model_parallel_size unset, or raise pipeline_model_parallel_size',
      },
    );
  }
  if (microBatches % stages !== 0) {
    throw new MbridgeError(
      'config',
      'MB_SCHEDULE_MICRO_BATCHES',
      `interleaved stages need the micro-batches of a step (${microBatches}) to be a multiple of the pipeline size (${stages})`,
      {
        hint: 'change train.global_batch_size or train.micro_batch_size, or leave virtual_pipeline_model_parallel_size unset',
      },
    );
  }
}

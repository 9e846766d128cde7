import type { Schedule, ScheduleShape } from './actions.js';
import { lockstepExchanges } from './schedule-exchanges.js';
import { computeOrder } from './schedule-order.js';

/**
 * The order of one step on every pipeline rank: 1F1B for one chunk a rank, interleaved 1F1B for more.
 * Micro-batches of a chunk go forward, and backward, in ascending order on every rank, so that gradients accumulate in
 * the same order as on a single stage.
 * @throws MbridgeError MB_SCHEDULE_SIZE, MB_SCHEDULE_SINGLE_STAGE, MB_SCHEDULE_MICRO_BATCHES
 */
export function buildSchedule(shape: ScheduleShape): Schedule {
  const full = { ...shape, forwardOnly: shape.forwardOnly ?? false };
  return { ...full, ranks: lockstepExchanges(full, computeOrder(full)) };
}

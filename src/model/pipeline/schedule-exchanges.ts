import type { ComputeAction, ScheduleAction, ScheduleShape, Transfer } from './actions.js';
import { inputOf, outputOf } from './stage-flow.js';

/** A transfer as both ends see it: the result of `producer` becomes the input of `consumer`. */
interface Delivery {
  readonly from: number;
  readonly to: number;
  readonly producer: ComputeAction;
  readonly consumer: ComputeAction;
}

/**
 * Places the communication of the compute orders. All ranks run in ticks: in each, a rank runs its next action if the
 * input has arrived, and what the tick produced is exchanged at its end, one exchange a rank involved. Both ends of a
 * transfer hold it in the exchange of the same tick, so no cycle of waiting ranks can exist: the exchanges of the
 * earliest unfinished tick can always complete.
 * @throws Error if the orders wait for each other (a bug: the orders made here never do)
 */
export function lockstepExchanges(
  shape: Required<ScheduleShape>,
  orders: readonly (readonly ComputeAction[])[],
): ScheduleAction[][] {
  const actions: ScheduleAction[][] = orders.map(() => []);
  const next = orders.map(() => 0);
  const arrived = orders.map(() => new Set<string>());
  for (;;) {
    const deliveries: Delivery[] = [];
    let ran = 0;
    orders.forEach((order, rank) => {
      const action = order[next[rank]!];
      if (action === undefined) return;
      if (inputOf(shape, rank, action) !== undefined && !arrived[rank]!.has(actionKey(action))) return;
      next[rank]!++;
      ran++;
      actions[rank]!.push(action);
      const output = outputOf(shape, rank, action);
      if (output === undefined) return;
      deliveries.push({ from: rank, to: output.rank, producer: action, consumer: output.action });
    });
    if (ran === 0) break;
    for (const { to, consumer } of deliveries) arrived[to]!.add(actionKey(consumer));
    exchangesOf(deliveries, orders.length).forEach((transfers, rank) => {
      if (transfers.length > 0) actions[rank]!.push({ kind: 'exchange', transfers });
    });
  }
  const stuck = orders.findIndex((order, rank) => next[rank]! < order.length);
  if (stuck >= 0) throw new Error(`pipeline rank ${stuck} waits for ever at its action ${next[stuck]!}`);
  return actions;
}

export function actionKey(action: ComputeAction): string {
  return `${action.kind} ${action.microBatch} ${action.chunk}`;
}

/** Every rank lists its transfers in the order of `deliveries`, so that the two ends of a pair of ranks agree. */
function exchangesOf(deliveries: readonly Delivery[], ranks: number): Transfer[][] {
  const transfers: Transfer[][] = Array.from({ length: ranks }, () => []);
  for (const { from, to, producer, consumer } of deliveries) {
    const what = producer.kind === 'forward' ? 'activation' : 'gradient';
    const { microBatch } = producer;
    transfers[from]!.push({ direction: 'send', what, peer: to, microBatch, chunk: producer.chunk });
    transfers[to]!.push({ direction: 'receive', what, peer: from, microBatch, chunk: consumer.chunk });
  }
  return transfers;
}

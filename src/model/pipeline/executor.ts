import type { CommGroup, PointToPoint } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import type { HeadOptions } from '../blocks/loss-head.js';
import type { BucketHooks } from '../parameters/bucket-hooks.js';
import type { ComputeAction, ExchangeAction, Schedule, Transfer } from './actions.js';
import type { Chunk } from './chunk.js';
import type { EventLease } from '../../engine/event-lease.js';
import { isFirstMicroBatch, isLastMicroBatch } from './schedule-buffers.js';

/** Two an exchange, by turns: one that is used again stands for a later exchange, which is safe to wait for too. */
const EVENTS = 32;

export interface ExecuteOptions extends Omit<HeadOptions, 'withGradient'> {
  /** Data-parallel hooks; `needed` is called before a bucket's first use in the step. */
  hooks?: BucketHooks | undefined;
}

/**
 * Runs a rank's list of a schedule. Exchanges run on a stream of their own: each starts after the computes before it
 * in the list, and only a compute that reads what came, or overwrites what went, waits for it.
 */
export class PipelineExecutor {
  readonly #device: Device;
  readonly #group: CommGroup;
  readonly #chunks: readonly Chunk[];
  readonly #events: EventLease;

  constructor(device: Device, group: CommGroup, chunks: readonly Chunk[]) {
    this.#device = device;
    this.#group = group;
    this.#chunks = chunks;
    this.#events = device.lease(group.size > 1 ? EVENTS : 0);
  }

  /** Gives its events back; nothing can be run any more. */
  dispose(): void {
    this.#events.end();
  }

  run(schedule: Schedule, options: ExecuteOptions = {}): void {
    const unfinished = new Map<Tensor, number>();
    for (const action of schedule.ranks[this.#group.rank] ?? []) {
      if (action.kind === 'exchange') this.#exchange(action, unfinished);
      else this.#compute(action, schedule, unfinished, options);
    }
    // The next step's first exchange must not overtake this step's last, and buffers are shared between them.
    for (const event of unfinished.values()) this.#device.wait(STREAM.compute, event);
  }

  #compute(
    action: ComputeAction,
    schedule: Schedule,
    unfinished: Map<Tensor, number>,
    { hooks, ...head }: ExecuteOptions,
  ): void {
    const { microBatch, kind } = action;
    const chunk = this.#chunk(action.chunk);
    const label = { name: kind, track: 'compute', args: { microBatch, chunk: action.chunk } };
    if (kind === 'forward') {
      this.#waitFor(chunk.input(microBatch), unfinished);
      if (chunk.head === null) this.#waitFor(chunk.output(microBatch), unfinished);
      this.#device.spans.onDevice(label, STREAM.compute, () => {
        chunk.forward(microBatch, {
          ...head,
          withGradient: !schedule.forwardOnly,
          hooks: isFirstMicroBatch(action) ? hooks : undefined,
        });
      });
    } else {
      this.#waitFor(chunk.gradient(microBatch), unfinished);
      this.#device.spans.onDevice(label, STREAM.compute, () => {
        chunk.backward(microBatch, isLastMicroBatch(schedule, action), hooks);
      });
    }
  }

  #exchange(action: ExchangeAction, unfinished: Map<Tensor, number>): void {
    const device = this.#device;
    const [before, after] = [this.#events.next(), this.#events.next()];
    device.record(before, STREAM.compute);
    device.wait(STREAM.pipeline, before);
    this.#group.exchange(action.transfers.map((transfer) => this.#bind(transfer)));
    device.record(after, STREAM.pipeline);
    for (const transfer of action.transfers) unfinished.set(this.#bind(transfer).tensor, after);
  }

  #bind({ direction, what, peer, microBatch, chunk: index }: Transfer): PointToPoint {
    const chunk = this.#chunk(index);
    let tensor: Tensor;
    if (what === 'gradient') tensor = chunk.gradient(microBatch);
    else tensor = direction === 'send' ? chunk.output(microBatch) : chunk.input(microBatch);
    return { kind: direction, peer, tensor };
  }

  #waitFor(tensor: Tensor, unfinished: Map<Tensor, number>): void {
    const event = unfinished.get(tensor);
    if (event === undefined) return;
    this.#device.wait(STREAM.compute, event);
    unfinished.delete(tensor);
  }

  #chunk(index: number): Chunk {
    const chunk = this.#chunks[index];
    if (chunk === undefined) throw new Error(`no model chunk ${index} on this rank`);
    return chunk;
  }
}

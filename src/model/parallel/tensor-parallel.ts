import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import type { EventLease } from '../../engine/event-lease.js';

/** A collective that was started; `wait` makes the compute stream wait for it and gives the result. */
export interface Pending {
  wait(): Tensor;
}

/** Enough events that a collective in flight never shares one with the next. */
const EVENTS = 8;
/** Columns that the fused norms take: MB_COMM_COLS of abi.h. */
const WIDEST_ROW = 8192;

/**
 * The collectives of tensor-parallel layers (Megatron's f and g operators), on a stream of their own so that they can
 * hide behind a gemm. With sequence parallelism the tokens between layers are sharded: gather = all-gather, reduce =
 * reduce-scatter. Without it they are replicated: gather is nothing, reduce = all-reduce in place.
 */
export class TensorParallel {
  readonly size: number;
  readonly rank: number;
  readonly sequenceParallel: boolean;
  readonly #group: CommGroup | null;
  readonly #device: Device | null;
  #events: EventLease | null = null;

  /** @param group null while only planning: sizes are known, nothing can be communicated */
  constructor(place: { size: number; rank: number }, group: CommGroup | null, sequenceParallel: boolean) {
    this.size = place.size;
    this.rank = place.rank;
    this.#group = group;
    this.#device = group?.device ?? null;
    this.sequenceParallel = sequenceParallel && place.size > 1;
  }

  /** Gives back what the collectives took from the device; a later one takes it again. */
  dispose(): void {
    this.#events?.end();
    this.#events = null;
  }

  /** Tokens a rank holds between layers, of `tokens` in a micro-batch. */
  localTokens(tokens: number): number {
    return this.sequenceParallel ? tokens / this.size : tokens;
  }

  /** All tokens of `shard`: in `full` under sequence parallelism, else `shard` itself. */
  gather(shard: Tensor, full: Tensor): Tensor {
    return this.startGather(shard, full).wait();
  }

  startGather(shard: Tensor, full: Tensor): Pending {
    if (!this.sequenceParallel) return { wait: () => shard };
    return this.#start(full, (group) => group.allGather(shard, full, STREAM.tensor));
  }

  /** Sum of `partial` over the ranks: this rank's tokens in `shard` under sequence parallelism, else in `partial`. */
  reduce(partial: Tensor, shard: Tensor): Tensor {
    return this.startReduce(partial, shard).wait();
  }

  startReduce(partial: Tensor, shard: Tensor): Pending {
    if (this.size === 1) return { wait: () => partial };
    if (this.sequenceParallel) {
      return this.#start(shard, (group) => group.reduceScatter(partial, shard, STREAM.tensor));
    }
    return this.#start(partial, (group) => group.allReduce(partial, 'sum', STREAM.tensor));
  }

  /**
   * Whether the ranks share the memory of both and can fuse the norm between two products with its collectives: a norm's
   * rows go from rank to rank once, without a buffer or a kernel between.
   */
  fuses(partial: Tensor, full: Tensor): boolean {
    const rowBytes = full.bytes / (full.shape[0] ?? 1);
    const fits = rowBytes % 16 === 0 && (full.shape.at(-1) ?? 0) <= WIDEST_ROW;
    const inOneArena = partial.arena === full.arena && this.#group?.shares(partial) === true;
    return this.sequenceParallel && fits && inOneArena;
  }

  /** {@link CommGroup.addNormGather}, where {@link fuses} says so. */
  addNormGather(...args: Parameters<CommGroup['addNormGather']>): void {
    this.#live.group.addNormGather(...args);
  }

  /** {@link CommGroup.normBackwardGather} beside what the compute stream does next; the result is `result`. */
  startNormBackwardGather(
    result: Tensor,
    tensors: Parameters<CommGroup['normBackwardGather']>[0],
    accumulate: { dx: boolean; dw: boolean },
  ): Pending {
    return this.#start(result, (group) => {
      group.normBackwardGather(tensors, accumulate, STREAM.tensor);
    });
  }

  /** In-place reduction on the compute stream, for small tensors. */
  allReduce(x: Tensor, reduce: 'sum' | 'max'): void {
    this.#group?.allReduce(x, reduce);
  }

  #start(result: Tensor, issue: (group: CommGroup) => void): Pending {
    const { group, device } = this.#live;
    const events = (this.#events ??= device.lease(EVENTS));
    const [ready, done] = [events.next(), events.next()];
    device.record(ready, STREAM.compute);
    device.wait(STREAM.tensor, ready);
    issue(group);
    device.record(done, STREAM.tensor);
    return {
      wait: () => {
        device.wait(STREAM.compute, done);
        return result;
      },
    };
  }

  get #live(): { group: CommGroup; device: Device } {
    const [group, device] = [this.#group, this.#device];
    if (group === null || device === null) throw new Error('tensor parallelism was only planned');
    return { group, device };
  }
}

import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import { Beside, type Pending } from './beside.js';

/** Columns that the fused norms take: MB_COMM_COLS of abi.h. */
const WIDEST_ROW = 8192;
/** Bytes that members of a group reduce in each other's memory: MB_COMM_SMALL of abi.h. */
const MOST_SMALL = 512 * 1024;

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
  readonly #beside: Beside;

  /** @param group null while only planning: sizes are known, nothing can be communicated */
  constructor(place: { size: number; rank: number }, group: CommGroup | null, sequenceParallel: boolean) {
    this.size = place.size;
    this.rank = place.rank;
    this.#group = group;
    this.#beside = new Beside(group);
    this.sequenceParallel = sequenceParallel && place.size > 1;
  }

  /** Gives back what the collectives took from the device; a later one takes it again. */
  dispose(): void {
    this.#beside.dispose();
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
    return this.#beside.start(full, (group) => group.allGather(shard, full, STREAM.tensor));
  }

  /** Sum of `partial` over the ranks: this rank's tokens in `shard` under sequence parallelism, else in `partial`. */
  reduce(partial: Tensor, shard: Tensor): Tensor {
    return this.startReduce(partial, shard).wait();
  }

  startReduce(partial: Tensor, shard: Tensor): Pending {
    if (this.size === 1) return { wait: () => partial };
    if (this.sequenceParallel) {
      return this.#beside.start(shard, (group) => group.reduceScatter(partial, shard, STREAM.tensor));
    }
    return this.#beside.start(partial, (group) => group.allReduce(partial, 'sum', STREAM.tensor));
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
    this.#beside.group.addNormGather(...args);
  }

  /** {@link CommGroup.normBackwardGather} beside what the compute stream does next; the result is `result`. */
  startNormBackwardGather(
    result: Tensor,
    tensors: Parameters<CommGroup['normBackwardGather']>[0],
    accumulate: { dx: boolean; dw: boolean },
  ): Pending {
    return this.#beside.start(result, (group) => {
      group.normBackwardGather(tensors, accumulate, STREAM.tensor);
    });
  }

  /** In-place reduction on the compute stream, for small tensors. */
  allReduce(x: Tensor, reduce: 'sum' | 'max'): void {
    const group = this.#group;
    const whole = x.bytes % 16 === 0 && x.offset % 16 === 0;
    if (whole && x.bytes <= MOST_SMALL && group?.shares(x) === true) group.allReduceSmall(x, reduce);
    else group?.allReduce(x, reduce);
  }

  /** `all` [size, ...x] of the ranks' `x`, on the compute stream, for small tensors. Not for a group of one. */
  allGather(x: Tensor, all: Tensor): void {
    this.#group?.allGather(x, all);
  }
}

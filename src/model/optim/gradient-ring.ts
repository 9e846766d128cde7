import { STREAM, type Device } from '../../engine/device.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { Bucket } from '../parameters/bucket.js';

/** One is being filled by a backward while the other is being reduced. */
const SLOTS = 2;

/**
 * Lends whole gradient buffers to the buckets that keep only a shard (`optim_grads`): every micro-batch, each such
 * bucket's gradient is computed into a buffer, reduce-scattered over the replicas, and added to this rank's shard.
 */
export class GradientRing {
  /** As large as the largest bucket that needs one. */
  readonly slots: readonly Tensor[];
  #next = 0;
  readonly #freed = new Map<Tensor, number>();
  readonly #lent = new Map<Bucket, Tensor>();

  constructor(plan: MemoryPlan, buckets: readonly Bucket[]) {
    const borrowers = buckets.filter((bucket) => bucket.borrows);
    const size = Math.max(0, ...borrowers.map((bucket) => bucket.size));
    const types = new Set(borrowers.map(({ gradShard }) => gradShard?.dtype ?? 'f32'));
    if (types.size > 1) throw new Error(`a ring lends one type of gradient, not ${[...types].join(' and ')}`);
    const count = size === 0 ? 0 : SLOTS;
    this.slots = Array.from({ length: count }, () => plan.tensor('gradients', [size], [...types][0] ?? 'f32'));
  }

  /** Lends the bucket a buffer, whose contents are undefined. */
  lend(bucket: Bucket, device: Device): void {
    const slot = this.slots[this.#next];
    if (slot === undefined) throw new Error('no gradient ring was planned');
    this.#next = (this.#next + 1) % SLOTS;
    const event = this.#freed.get(slot);
    if (event !== undefined) device.wait(STREAM.compute, event);
    bucket.lend(slot);
    this.#lent.set(bucket, slot);
  }

  /** Makes the compute stream wait for reductions that still read a buffer. */
  settle(device: Device): void {
    for (const event of this.#freed.values()) device.wait(STREAM.compute, event);
    this.#freed.clear();
  }

  /**
   * Reduces the lent gradient into the shard on the data stream and takes the buffer back.
   * @param accumulate adds to what earlier micro-batches left in the shard
   * @param event recorded when the buffer is free again
   */
  collect(bucket: Bucket, ops: Ops, accumulate: boolean, event: number): void {
    const { grads, gradShard, group } = bucket;
    const slot = this.#lent.get(bucket);
    if (grads === null || gradShard === null || slot === undefined) {
      throw new Error(`bucket ${bucket.name} holds no lent gradient`);
    }
    const part = accumulate ? bucket.shard(grads) : gradShard;
    group.reduceScatter(grads, part, STREAM.data);
    if (accumulate) ops.add(gradShard, part, gradShard);
    ops.device.record(event, STREAM.data);
    this.#freed.set(slot, event);
    this.#lent.delete(bucket);
    bucket.give();
  }
}

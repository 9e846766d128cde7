import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import { Ops, type OptimizerHyper } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { BucketHooks } from '../parameters/bucket-hooks.js';
import type { EventLease } from '../../engine/event-lease.js';
import type { OptimizerState } from './optimizer-state.js';
import type { Bucket, ParameterBuffer } from '../parameters/parameter-buffer.js';

export interface OptimizerGroups {
  tp: CommGroup;
  /** Replicas: gradients are summed, and state is sharded, over these. */
  dpCp: CommGroup;
  /** First and last stage, where an embedding is tied across them; null on the stages between. */
  embd: CommGroup | null;
  /** All ranks of this model: the norm and the loss are summed over these. */
  model: CommGroup;
}

export interface OptimizerOptions {
  ops: Ops;
  buffer: ParameterBuffer;
  state: OptimizerState;
  groups: OptimizerGroups;
  hyper: OptimizerHyper;
  weightDecay: number;
  /** Reduce gradients as soon as a bucket has its last contribution, and gather parameters while the next forward runs. */
  overlap: { gradReduce: boolean; paramGather: boolean };
  /** Loss sum and token count of this step, where this rank has them and is the one to count them; else null. */
  lossAndTokens: Tensor | null;
}

/**
 * AdamW whose state is sharded over the replicas. A step never reads a device value on the host: norm, clipping, the
 * skip of a non-finite update and the learning rate are computed where they are used.
 */
export class DistributedOptimizer {
  readonly state: OptimizerState;
  /** To be passed to every forwardBackward of the model: hides reduction and gathering behind its work. */
  readonly hooks: BucketHooks;
  readonly #o: OptimizerOptions;
  readonly #device: Device;
  readonly #dataOps: Ops;
  /** One a bucket, in the buffer's order. */
  readonly #events: EventLease;
  /** What the compute stream, and the data stream, had been given when the other was last made to wait for it. */
  readonly #marks: EventLease;
  readonly #reduced = new Set<Bucket>();
  readonly #collected = new Set<Bucket>();

  constructor(options: OptimizerOptions) {
    this.#o = options;
    this.state = options.state;
    this.#device = options.ops.device;
    this.#dataOps = new Ops(this.#device, STREAM.data);
    this.#events = this.#device.lease(options.buffer.buckets.length);
    this.#marks = this.#device.lease(2);
    this.hooks = {
      needed: (bucket) => options.buffer.settle(this.#device, [bucket]),
      opening: (bucket) => this.#open(bucket),
      done: (bucket, last) => this.#done(bucket, last),
    };
  }

  /** Gives its events back, once what they stand for is waited for. The state is the model's, and stays. */
  dispose(): void {
    this.#o.buffer.settle(this.#device);
    this.state.ring.settle(this.#device);
    this.#events.end();
    this.#marks.end();
  }

  /** Clears moments, gradients and counters. */
  initialize(): void {
    const { ops, buffer, state } = this.#o;
    for (const { m, v } of state.buckets) {
      ops.fill(m, 0);
      ops.fill(v, 0);
    }
    // The padding between weights is never written, and must count as zero in norms.
    for (const { grads, gradShard } of buffer.buckets) {
      const memory = grads ?? gradShard;
      if (memory !== null) ops.fill(memory, 0);
    }
    for (const slot of state.ring.slots) ops.fill(slot, 0);
    ops.fill(state.scalars, 0);
  }

  /**
   * One update from the gradients that backward left: reduce, norm, clip, AdamW, gather.
   * @param wantsStop tells the other ranks, in the same reduction, that this one was asked to stop
   */
  step(wantsStop = false): void {
    this.reduceGradients();
    this.#reduceSums(wantsStop);
    this.#update();
  }

  /** Sums gradients over tp where they are partial, over the replicas, and over the copies of a tied embedding. */
  reduceGradients(): void {
    const { groups, buffer } = this.#o;
    for (const bucket of buffer.buckets) if (!this.#reduced.has(bucket)) this.#reduce(bucket);
    this.#reduced.clear();
    this.#collected.clear();
    this.#join(STREAM.data, STREAM.compute);
    for (const bucket of buffer.buckets) {
      // Both copies have the same layout, so their shards lie over each other.
      if (bucket.kind.tied !== 'none') groups.embd?.allReduce(this.#own(bucket));
    }
  }

  #open(bucket: Bucket): void {
    if (bucket.gradShard === null || bucket.grads !== null) return;
    this.state.ring.lend(bucket, this.#device);
  }

  #done(bucket: Bucket, last: boolean): void {
    const { groups, state, overlap } = this.#o;
    if (state.ring.slots.length > 0 && isLent(bucket, state)) {
      this.#join(STREAM.compute, STREAM.data);
      const accumulate = this.#collected.has(bucket);
      state.ring.collect(bucket, groups.dpCp, this.#dataOps, accumulate, this.#eventOf(bucket));
      this.#collected.add(bucket);
      if (last) this.#reduced.add(bucket);
    } else if (last && overlap.gradReduce) {
      this.#reduce(bucket);
      this.#reduced.add(bucket);
    }
  }

  /** Reduces a whole gradient on the data stream, after what the compute stream has been given so far. */
  #reduce(bucket: Bucket): void {
    const { groups, state, buffer } = this.#o;
    const { grads, kind } = bucket;
    if (grads === null) throw new Error(`bucket ${bucket.name} has no gradient to reduce`);
    if (kind.tpPartialGradient) groups.tp.allReduce(grads);
    this.#join(STREAM.compute, STREAM.data);
    if (state.sharded) groups.dpCp.reduceScatter(grads, buffer.shard(bucket, grads), STREAM.data);
    else groups.dpCp.allReduce(grads, 'sum', STREAM.data);
  }

  /**
   * Sum of squares of the weights over all ranks of the model, some of them counted more than once: NaN where a weight is.
   * Every rank calls it, after the same step.
   */
  async squaredWeights(): Promise<number> {
    const { ops, groups, state } = this.#o;
    ops.fill(state.sums, 0);
    for (const { main } of state.buckets) {
      ops.sumOfSquares(main, state.sums.slice(0, 1), state.workspace, true);
    }
    groups.model.allReduce(state.sums);
    const bytes = await ops.device.fetch(state.sums);
    return new Float32Array(bytes.buffer, bytes.byteOffset, 1)[0] as number;
  }

  #reduceSums(wantsStop: boolean): void {
    const { ops, groups, buffer, state, lossAndTokens } = this.#o;
    const normSq = state.sums.slice(0, 1);
    ops.fill(state.sums, 0);
    for (const bucket of buffer.buckets) {
      const { tied, tpReplicated } = bucket.kind;
      if (tied === 'copy' || (tpReplicated && groups.tp.rank !== 0)) continue;
      ops.sumOfSquares(trainable(bucket.gradShard), normSq, state.workspace, true);
    }
    if (lossAndTokens !== null) ops.device.copy(lossAndTokens, state.sums.slice(1, 2));
    if (wantsStop) ops.fill(state.sums.slice(3, 1), 1);
    groups.model.allReduce(state.sums);
  }

  /** AdamW bucket by bucket, each gathered while the next are updated, in the order of the next forward. */
  #update(): void {
    const { ops, state, hyper, weightDecay, buffer, groups, overlap } = this.#o;
    if (state.readers !== null) this.#device.wait(STREAM.compute, state.readers);
    state.readers = null;
    ops.optimizerPrepare(state.sums.slice(0, 1), state.sums.slice(1, 2), state.scalars, hyper);
    const gathers = state.sharded && groups.dpCp.size > 1;
    // Norms are small and needed from the first layer on.
    const order = [...state.buckets].sort(
      (a, b) => Number(a.bucket.kind.weightDecay) - Number(b.bucket.kind.weightDecay),
    );
    for (const { bucket, main, m, v } of order) {
      const out = state.sharded ? buffer.shard(bucket, bucket.params) : bucket.params;
      const decay = bucket.kind.weightDecay ? weightDecay : 0;
      ops.adamw({ p: main, m, v, g: this.#own(bucket), out, state: state.scalars }, hyper, decay);
      if (gathers) this.#gather(bucket, out);
    }
    const awaited = ({ kind }: Bucket): boolean => !kind.weightDecay || !overlap.paramGather;
    if (gathers) buffer.settle(this.#device, buffer.buckets.filter(awaited));
  }

  /** Gathers a bucket on the data stream; who reads its parameters waits for that. */
  #gather(bucket: Bucket, own: Tensor): void {
    const { groups, buffer } = this.#o;
    const event = this.#eventOf(bucket);
    this.#join(STREAM.compute, STREAM.data);
    groups.dpCp.allGather(own, bucket.params, STREAM.data);
    this.#device.record(event, STREAM.data);
    buffer.gathering.set(bucket, event);
  }

  /** `later` continues after everything `earlier` has been given so far. */
  #join(earlier: Joined, later: Joined): void {
    const mark = this.#marks.at(earlier === STREAM.compute ? 0 : 1);
    this.#device.record(mark, earlier);
    this.#device.wait(later, mark);
  }

  #eventOf(bucket: Bucket): number {
    return this.#events.at(this.#o.buffer.buckets.indexOf(bucket));
  }

  /** The reduced gradient that this rank updates from. */
  #own(bucket: Bucket): Tensor {
    return trainable(this.state.sharded ? bucket.gradShard : bucket.grads);
  }
}

type Joined = typeof STREAM.compute | typeof STREAM.data;

/** Whether the bucket's whole gradient is a buffer of the ring. */
function isLent(bucket: Bucket, state: OptimizerState): boolean {
  return state.ring.slots.some((slot) => slot.offset === bucket.grads?.offset);
}

function trainable(gradient: Tensor | null): Tensor {
  if (gradient === null) throw new Error('a frozen bucket has no gradient');
  return gradient;
}

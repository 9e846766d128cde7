import type { CommGroup } from '../comm/comm-group.js';
import type { MemoryPlan } from '../engine/memory-plan.js';
import { REDUCE_PARTS, STATE, type Ops, type OptimizerHyper } from '../engine/ops.js';
import type { Tensor } from '../engine/tensor.js';
import type { Bucket, ParameterBuffer } from './parameter-buffer.js';

/** The optimizer's memory for one bucket: this rank's shard, or the whole bucket where nothing is sharded. */
export interface BucketState {
  readonly bucket: Bucket;
  /** Parameters in float32; the model's own memory where that is float32 already. */
  readonly main: Tensor;
  /** First and second moment. */
  readonly m: Tensor;
  readonly v: Tensor;
}

/** Memory of AdamW, planned with the model's. */
export class OptimizerState {
  readonly buckets: readonly BucketState[];
  /** float64, see STATE: step, learning rate, norm, ... live on the device. */
  readonly scalars: Tensor;
  /** f32 [4]: squared norm, loss sum, token count, ranks that want to stop; reduced together. */
  readonly sums: Tensor;
  readonly workspace: Tensor;

  constructor(plan: MemoryPlan, buffer: ParameterBuffer, sharded: boolean) {
    this.buckets = buffer.buckets.map((bucket) => {
      const size = sharded ? bucket.shardSize : bucket.size;
      const own = sharded ? buffer.shard(bucket, bucket.params) : bucket.params;
      const state = (): Tensor => plan.tensor('optimizer', [size], 'f32');
      return { bucket, main: own.dtype === 'f32' ? own : state(), m: state(), v: state() };
    });
    this.scalars = plan.tensor('optimizer', [STATE.length], 'f64');
    this.sums = plan.tensor('workspace', [4], 'f32');
    this.workspace = plan.tensor('workspace', [REDUCE_PARTS], 'f32');
  }
}

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
  sharded: boolean;
  /** Loss sum and token count of this step, where this rank has them and is the one to count them; else null. */
  lossAndTokens: Tensor | null;
}

/**
 * AdamW whose state is sharded over the replicas. A step never reads a device value on the host: norm, clipping, the
 * skip of a non-finite update and the learning rate are computed where they are used.
 */
export class DistributedOptimizer {
  readonly state: OptimizerState;
  private readonly o: OptimizerOptions;

  constructor(options: OptimizerOptions) {
    this.o = options;
    this.state = options.state;
  }

  /** Clears moments and counters, and takes over the parameters. Gradients must hold the float32 parameters. */
  initialize(): void {
    const { ops, state } = this.o;
    for (const { bucket, main, m, v } of state.buckets) {
      if (main.dtype !== bucket.params.dtype) ops.device.copy(this.own(bucket, gradients(bucket)), main);
      ops.fill(m, 0);
      ops.fill(v, 0);
      ops.fill(gradients(bucket), 0);
    }
    ops.fill(state.scalars, 0);
  }

  /**
   * One update from the gradients that backward left: reduce, norm, clip, AdamW, gather.
   * @param wantsStop tells the other ranks, in the same reduction, that this one was asked to stop
   */
  step(wantsStop = false): void {
    this.reduceGradients();
    this.reduceSums(wantsStop);
    this.update();
    this.gatherParameters();
  }

  /** Sums gradients over tp where they are partial, over the replicas, and over the copies of a tied embedding. */
  reduceGradients(): void {
    const { groups, sharded, buffer } = this.o;
    for (const bucket of buffer.buckets) {
      const grads = gradients(bucket);
      if (bucket.kind.tpPartialGradient) groups.tp.allReduce(grads);
      if (sharded) groups.dpCp.reduceScatter(grads, buffer.shard(bucket, grads));
      else groups.dpCp.allReduce(grads);
      // Both copies have the same layout, so their shards lie over each other.
      if (bucket.kind.tied !== 'none') groups.embd?.allReduce(this.own(bucket, grads));
    }
  }

  private reduceSums(wantsStop: boolean): void {
    const { ops, groups, buffer, state, lossAndTokens } = this.o;
    const normSq = state.sums.slice(0, 1);
    ops.fill(state.sums, 0);
    for (const bucket of buffer.buckets) {
      const { tied, tpReplicated } = bucket.kind;
      if (tied === 'copy' || (tpReplicated && groups.tp.rank !== 0)) continue;
      ops.sumOfSquares(buffer.shard(bucket, gradients(bucket)), normSq, state.workspace, true);
    }
    if (lossAndTokens !== null) ops.device.copy(lossAndTokens, state.sums.slice(1, 2));
    if (wantsStop) ops.fill(state.sums.slice(3, 1), 1);
    groups.model.allReduce(state.sums);
  }

  private update(): void {
    const { ops, state, hyper, weightDecay } = this.o;
    ops.optimizerPrepare(state.sums.slice(0, 1), state.sums.slice(1, 2), state.scalars, hyper);
    for (const { bucket, main, m, v } of state.buckets) {
      ops.adamw(
        {
          p: main,
          m,
          v,
          g: this.own(bucket, gradients(bucket)),
          out: this.own(bucket, bucket.params),
          state: state.scalars,
        },
        hyper,
        bucket.kind.weightDecay ? weightDecay : 0,
      );
    }
  }

  private gatherParameters(): void {
    const { groups, buffer, sharded } = this.o;
    if (!sharded) return;
    for (const bucket of buffer.buckets) groups.dpCp.allGather(buffer.shard(bucket, bucket.params), bucket.params);
  }

  /** The part of a flat bucket tensor that this rank updates. */
  private own(bucket: Bucket, flat: Tensor): Tensor {
    return this.o.sharded ? this.o.buffer.shard(bucket, flat) : flat;
  }
}

function gradients(bucket: Bucket): Tensor {
  if (bucket.grads === null) throw new Error(`bucket ${bucket.name} is frozen`);
  return bucket.grads;
}

import type { ActDType } from '../../engine/dtype.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import { REDUCE_PARTS, type Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { Bucket } from '../parameters/bucket.js';
import { Readers } from '../parameters/readers.js';
import type { StepTotals } from '../totals/step-totals.js';
import { GradientRing } from './gradient-ring.js';

/** In what types the optimizer keeps its memory. What is bf16 is rounded stochastically. */
export interface StateTypes {
  readonly main: ActDType;
  readonly m: ActDType;
  readonly v: ActDType;
}

/** The optimizer's memory for one bucket: this rank's shard, or the whole bucket where nothing is sharded. */
export interface BucketState {
  readonly bucket: Bucket;
  /** The bucket's element that it begins with. */
  readonly start: number;
  /** Parameters that updates are added to; the model's own memory where that is of their type. */
  readonly main: Tensor;
  /** First and second moment. */
  readonly m: Tensor;
  readonly v: Tensor;
}

/** Memory of AdamW, planned with the model's. */
export class OptimizerState {
  /** Of the buckets that are trained. */
  readonly buckets: readonly BucketState[];
  /** Buckets that are not trained: nothing is kept for them. */
  readonly frozen: readonly Bucket[];
  /** Whether each replica keeps a shard only. */
  readonly sharded: boolean;
  readonly types: StateTypes;
  /** float64, see STATE: step, learning rate, norm, ... live on the device. */
  readonly scalars: Tensor;
  /** Of the scalars; those of a bucket's state are the bucket's. */
  readonly readers = new Readers();
  /** f32 [1], of this step's gradients. */
  readonly normSquared: Tensor;
  /** f32 [1]: how many ranks want to stop. */
  readonly stopVotes: Tensor;
  readonly workspace: Tensor;
  readonly ring: GradientRing;
  /** Whether a backward has left gradients that no update has taken yet. */
  hasGradients = false;

  constructor(
    plan: MemoryPlan,
    buckets: readonly Bucket[],
    totals: StepTotals,
    { sharded, types }: { readonly sharded: boolean; readonly types: StateTypes },
  ) {
    this.sharded = sharded;
    this.types = types;
    this.frozen = buckets.filter((bucket) => !bucket.trainable);
    this.buckets = buckets
      .filter((bucket) => bucket.trainable)
      .map((bucket) => {
        const own = this.#own(bucket);
        const start = sharded ? bucket.shardSize * bucket.replicas.rank : 0;
        const state = (type: ActDType): Tensor => plan.tensor('optimizer', [own.size], type);
        const main = own.dtype === types.main ? own : state(types.main);
        return { bucket, start, main, m: state(types.m), v: state(types.v) };
      });
    this.ring = new GradientRing(plan, buckets);
    this.scalars = totals.state;
    this.normSquared = totals.reserve(['grad_norm_squared']);
    this.stopVotes = totals.reserve(['stop_votes']);
    this.workspace = plan.tensor('workspace', [REDUCE_PARTS], 'f32');
  }

  /** Zeroes all gradients: the padding between weights is never written, and must count as zero in norms. */
  clearGradients(ops: Ops): void {
    for (const { bucket } of this.buckets) ops.fill((bucket.grads ?? bucket.gradShard) as Tensor, 0);
    for (const slot of this.ring.slots) ops.fill(slot, 0);
  }

  /** Takes the main parameters of a bucket from its float32 values. Every replica calls it. */
  adopt(ops: Ops, bucket: Bucket, values: Tensor): void {
    const state = this.buckets.find((entry) => entry.bucket === bucket);
    if (state === undefined || state.main.dtype === bucket.params.dtype) return;
    ops.cast(this.sharded ? bucket.shard(values) : values, state.main);
    if (state.main.dtype === 'bf16') this.publish(ops, state);
  }

  /** Takes main parameters from the model's, which something else than an update has set. */
  follow(ops: Ops, state: BucketState): void {
    const { bucket, main } = state;
    if (main.dtype === bucket.params.dtype) return;
    ops.cast(this.#own(bucket), main);
    if (main.dtype === 'bf16') this.publish(ops, state);
  }

  /** Sets the model's parameters, on all replicas, from main ones of their own that something else than an update has set. */
  publish(ops: Ops, { bucket, main }: BucketState): void {
    const own = this.#own(bucket);
    ops.cast(main, own);
    if (this.sharded && bucket.replicas.size > 1) bucket.group.allGather(own, bucket.params);
  }

  #own(bucket: Bucket): Tensor {
    return this.sharded ? bucket.shard(bucket.params) : bucket.params;
  }
}

import type { MemoryPlan } from '../../engine/memory-plan.js';
import { REDUCE_PARTS, STATE, type Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import { GradientRing } from './gradient-ring.js';
import type { Bucket, ParameterBuffer } from '../parameters/parameter-buffer.js';

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
  /** Whether each replica keeps a shard only. */
  readonly sharded: boolean;
  /** float64, see STATE: step, learning rate, norm, ... live on the device. */
  readonly scalars: Tensor;
  /** f32 [4]: squared norm, loss sum, token count, ranks that want to stop; reduced together. */
  readonly sums: Tensor;
  readonly workspace: Tensor;
  /** Event after which the state may change: a copy of it is still being taken. Null where nobody reads it. */
  readers: number | null = null;
  readonly ring: GradientRing;
  readonly #buffer: ParameterBuffer;

  constructor(plan: MemoryPlan, buffer: ParameterBuffer, sharded: boolean) {
    this.#buffer = buffer;
    this.sharded = sharded;
    this.buckets = buffer.buckets.map((bucket) => {
      const own = sharded ? buffer.shard(bucket, bucket.params) : bucket.params;
      const state = (): Tensor => plan.tensor('optimizer', [own.size], 'f32');
      return { bucket, main: own.dtype === 'f32' ? own : state(), m: state(), v: state() };
    });
    this.ring = new GradientRing(plan, buffer.buckets);
    this.scalars = plan.tensor('optimizer', [STATE.length], 'f64');
    this.sums = plan.tensor('workspace', [4], 'f32');
    this.workspace = plan.tensor('workspace', [REDUCE_PARTS], 'f32');
  }

  /** Takes the main parameters of a bucket from its float32 values. */
  adopt(ops: Ops, bucket: Bucket, values: Tensor): void {
    const state = this.buckets.find((entry) => entry.bucket === bucket);
    if (state === undefined || state.main.dtype === bucket.params.dtype) return;
    ops.device.copy(this.sharded ? this.#buffer.shard(bucket, values) : values, state.main);
  }
}

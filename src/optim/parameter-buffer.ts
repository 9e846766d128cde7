import type { ActDType } from '../engine/dtype.js';
import type { MemoryPlan } from '../engine/memory-plan.js';
import type { Tensor } from '../engine/tensor.js';
import { Weight, localSize, type ParameterSpec, type Place } from '../model/parameter.js';

/** Why a bucket's parameters are treated alike; all of a bucket shares these. */
export interface BucketKind {
  readonly weightDecay: boolean;
  /** Every tp rank holds the whole parameter: counted once in norms. */
  readonly tpReplicated: boolean;
  /** Each tp rank has only its tokens' or heads' part of the gradient, which must be summed over tp. */
  readonly tpPartialGradient: boolean;
  /** The last stage's copy of a tied embedding: its gradient is summed over `embd`, and counted on the first stage. */
  readonly tied: 'none' | 'owner' | 'copy';
}

/** Where a parameter lies in its bucket, in elements. */
export interface BucketEntry {
  readonly spec: ParameterSpec;
  readonly offset: number;
}

/**
 * A flat run of parameters: the unit of gradient reduction, of the optimizer and of parameter gathering. Rank r of dp
 * owns elements [r, r+1) * shardSize, whatever parameters lie there.
 */
export interface Bucket {
  readonly name: string;
  readonly kind: BucketKind;
  readonly entries: readonly BucketEntry[];
  /** Elements, padded so that it divides by dp. */
  readonly size: number;
  readonly shardSize: number;
  readonly params: Tensor;
  /** Whole float32 gradient; null for a frozen model. */
  readonly grads: Tensor | null;
  readonly weights: readonly Weight[];
}

/** 256 bytes of float32, so that every weight and every shard starts at a full line. */
const PAD = 64;

function padTo(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple;
}

/** The parameters of one rank, in buckets. Built while the memory is planned. */
export class ParameterBuffer {
  readonly buckets: Bucket[] = [];
  private readonly plan: MemoryPlan;
  private readonly dtype: ActDType;
  private readonly dp: Place;
  private readonly trainable: boolean;

  constructor(plan: MemoryPlan, options: { dtype: ActDType; dp: Place; trainable: boolean }) {
    this.plan = plan;
    this.dtype = options.dtype;
    this.dp = options.dp;
    this.trainable = options.trainable;
  }

  /**
   * Adds a bucket of weights. Each inner list is one weight: its parameters lie together without a gap, as one matrix
   * with the sum of their rows.
   */
  add(name: string, kind: BucketKind, groups: readonly (readonly ParameterSpec[])[]): Weight[] {
    const entries: BucketEntry[] = [];
    const places: { specs: readonly ParameterSpec[]; offset: number; rows: number; cols: number }[] = [];
    let size = 0;
    for (const specs of groups) {
      const cols = specs[0]?.cols.count ?? 0;
      const rows = specs.reduce((sum, spec) => sum + spec.rows.count, 0);
      places.push({ specs, offset: size, rows, cols });
      for (const spec of specs) {
        entries.push({ spec, offset: size });
        size += localSize(spec);
      }
      size = padTo(size, PAD);
    }
    size = padTo(size, PAD * this.dp.size);
    const params = this.plan.tensor('parameters', [size], this.dtype);
    const grads = this.trainable ? this.plan.tensor('gradients', [size], 'f32') : null;
    const weights = places.map(({ specs, offset, rows, cols }) => {
      const shape = [rows, cols];
      return new Weight(
        specs,
        params.slice(offset, rows * cols, shape),
        grads?.slice(offset, rows * cols, shape) ?? null,
      );
    });
    this.buckets.push({ name, kind, entries, size, shardSize: size / this.dp.size, params, grads, weights });
    return weights;
  }

  /** This rank's shard of a flat bucket tensor. */
  shard(bucket: Bucket, flat: Tensor): Tensor {
    return flat.slice(bucket.shardSize * this.dp.rank, bucket.shardSize);
  }

  /** Starts a step: the first gradient of every weight overwrites. */
  reset(): void {
    for (const bucket of this.buckets) for (const weight of bucket.weights) weight.reset();
  }

  /** Parameters held here, without padding. */
  get parameterCount(): number {
    return this.buckets.flatMap((b) => b.entries).reduce((sum, { spec }) => sum + localSize(spec), 0);
  }
}

import { STREAM, type Device } from '../../engine/device.js';
import type { ActDType } from '../../engine/dtype.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import { Weight, localSize, type ParameterSpec, type Place } from './parameter.js';

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
  /**
   * Whole float32 gradient: memory of its own, or a buffer lent by the gradient ring while a backward fills it (then
   * null at other times). Null for a frozen model.
   */
  grads: Tensor | null;
  /** This rank's part of the gradient, summed over replicas once the step's backwards are done; null if frozen. */
  readonly gradShard: Tensor | null;
  readonly weights: readonly Weight[];
  /** Element offset of each of `weights`. */
  readonly offsets: readonly number[];
}

/** 256 bytes of float32, so that every weight and every shard starts at a full line. */
const PAD = 64;

function padTo(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple;
}

/** The parameters of one rank, in buckets. Built while the memory is planned. */
export class ParameterBuffer {
  readonly buckets: Bucket[] = [];
  /** Buckets whose parameters are still being gathered, and the event that ends it. */
  readonly gathering = new Map<Bucket, number>();
  readonly #plan: MemoryPlan;
  readonly #dtype: ActDType;
  readonly #dp: Place;
  readonly #trainable: boolean;
  #staging: Tensor | null = null;

  /** @param options.trainable false: no gradients */
  constructor(plan: MemoryPlan, options: { dtype: ActDType; dp: Place; trainable: boolean }) {
    this.#plan = plan;
    this.#dtype = options.dtype;
    this.#dp = options.dp;
    this.#trainable = options.trainable;
  }

  /**
   * Adds a bucket of weights. Each inner list is one weight: its parameters lie together without a gap, as one matrix
   * with the sum of their rows, or as one vector. Weights that tp cuts unequally take the same room on every rank.
   * @param gradients whether the bucket keeps a whole gradient, or only this rank's shard of it (a ring lends the rest)
   */
  add(
    name: string,
    kind: BucketKind,
    groups: readonly (readonly ParameterSpec[])[],
    gradients: 'whole' | 'shard' = 'whole',
  ): Weight[] {
    const entries: BucketEntry[] = [];
    const places: { specs: readonly ParameterSpec[]; offset: number; rows: number; cols: number }[] = [];
    let size = 0;
    for (const specs of groups) {
      const elements = specs.reduce((sum, spec) => sum + localSize(spec), 0);
      const cols = specs[0]?.globalShape.length === 1 ? elements : (specs[0]?.cols.count ?? 0);
      places.push({ specs, offset: size, rows: elements / cols, cols });
      for (const spec of specs) {
        entries.push({ spec, offset: size });
        size += spec.room;
      }
      size = padTo(size, PAD);
    }
    size = padTo(size, PAD * this.#dp.size);
    const params = this.#plan.tensor('parameters', [size], this.#dtype);
    const shardSize = size / this.#dp.size;
    const own = this.#trainable
      ? this.#plan.tensor('gradients', [gradients === 'whole' ? size : shardSize], 'f32')
      : null;
    const grads = gradients === 'whole' ? own : null;
    const gradShard = gradients === 'whole' && own !== null ? own.slice(shardSize * this.#dp.rank, shardSize) : own;
    const weights = places.map(({ specs, offset, rows, cols }) => {
      const shape = [rows, cols];
      return new Weight(
        specs,
        params.slice(offset, rows * cols, shape),
        grads?.slice(offset, rows * cols, shape) ?? null,
      );
    });
    const offsets = places.map(({ offset }) => offset);
    this.buckets.push({ name, kind, entries, size, shardSize, params, grads, gradShard, weights, offsets });
    return weights;
  }

  /** This rank's shard of a flat bucket tensor. */
  shard(bucket: Bucket, flat: Tensor): Tensor {
    return flat.slice(bucket.shardSize * this.#dp.rank, bucket.shardSize);
  }

  /** float32 memory to load a bucket of a frozen bf16 model through. */
  frozenStaging(bucket: Bucket): Tensor {
    if (this.#staging === null) throw new Error('only a frozen bf16 model has memory to load through');
    return this.#staging.slice(0, bucket.size);
  }

  /** To be called when all buckets are there. */
  finish(): void {
    if (this.#trainable || this.#dtype === 'f32') return;
    const largest = Math.max(...this.buckets.map((bucket) => bucket.size));
    this.#staging = this.#plan.tensor('staging', [largest], 'f32');
  }

  /** Makes the compute stream wait for parameters that are still being gathered. */
  settle(device: Device, buckets: readonly Bucket[] = this.buckets): void {
    for (const bucket of buckets) {
      const event = this.gathering.get(bucket);
      if (event !== undefined) device.wait(STREAM.compute, event);
      this.gathering.delete(bucket);
    }
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

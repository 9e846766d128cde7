import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { Device } from '../../engine/device.js';
import type { ActDType } from '../../engine/dtype.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import { Bucket, type BucketEntry, type BucketKind } from './bucket.js';
import { Weight, localSize, type ParameterSpec, type Place } from './parameter.js';

/** 256 bytes of float32, so that every weight and every shard starts at a full line. */
const PAD = 64;

function padTo(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple;
}

export interface ParameterBufferOptions {
  readonly dtype: ActDType;
  /** The ranks that hold the same parameters; `group` talks to them, null while only planning. */
  readonly replicas: Place;
  readonly group: CommGroup | null;
  /** Of gradients that products alone add to. */
  readonly gradients: ActDType;
  /** Whether a parameter of the bucket of that name has a gradient; the same for all of a weight. */
  readonly trains: (bucket: string, parameter: string) => boolean;
}

function hasWideGradient({ grads }: Bucket): boolean {
  return grads?.dtype === 'f32';
}

/** The parameters of one rank, in buckets. Built while the memory is planned. */
export class ParameterBuffer {
  readonly buckets: Bucket[] = [];
  readonly #plan: MemoryPlan;
  readonly #o: ParameterBufferOptions;
  #staging: Tensor | null = null;

  constructor(plan: MemoryPlan, options: ParameterBufferOptions) {
    this.#plan = plan;
    this.#o = options;
  }

  /**
   * Adds a bucket of weights, and one more for those that are frozen where others are not: `<name>.frozen`. Each inner list is one weight: its parameters lie together without a gap, as one matrix
   * with the sum of their rows, or as one vector. Weights that tp cuts unequally take the same room on every rank.
   * @param gradients whether the bucket keeps a whole gradient, or only this rank's shard of it (a ring lends the rest)
   */
  add(
    name: string,
    kind: BucketKind,
    groups: readonly (readonly ParameterSpec[])[],
    gradients: 'whole' | 'shard' = 'whole',
  ): Weight[] {
    const trains = (specs: readonly ParameterSpec[]): boolean => {
      const found = new Set(specs.map((spec) => this.#o.trains(name, spec.name)));
      if (found.size > 1) throw new Error(`${specs.map((spec) => spec.name).join(', ')}: frozen in part`);
      return !found.has(false);
    };
    const [trained, frozen] = [groups.filter(trains), groups.filter((specs) => !trains(specs))];
    if (frozen.length === 0 || trained.length === 0) {
      return this.#addBucket(name, kind, groups, gradients, frozen.length === 0);
    }
    const weights = {
      trained: this.#addBucket(name, kind, trained, gradients, true),
      frozen: this.#addBucket(`${name}.frozen`, kind, frozen, gradients, false),
    };
    return groups.map((specs) => weights[trains(specs) ? 'trained' : 'frozen'].shift() as Weight);
  }

  #addBucket(
    name: string,
    kind: BucketKind,
    groups: readonly (readonly ParameterSpec[])[],
    gradients: 'whole' | 'shard',
    trainable: boolean,
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
    const { dtype, replicas, group } = this.#o;
    const gradientType = kind.matrices ? this.#o.gradients : 'f32';
    size = padTo(size, PAD * replicas.size);
    const params = this.#plan.tensor('parameters', [size], dtype);
    const kept = gradients === 'whole' ? size : size / replicas.size;
    const own = trainable ? this.#plan.tensor('gradients', [kept], gradientType) : null;
    const whole = gradients === 'whole' ? own : null;
    const weights = places.map(({ specs, offset, rows, cols }) => {
      const shape = [rows, cols];
      const weight = new Weight(
        specs,
        params.slice(offset, rows * cols, shape),
        whole?.slice(offset, rows * cols, shape) ?? null,
      );
      return { weight, offset };
    });
    const keeps = gradients;
    this.buckets.push(
      new Bucket({ name, kind, entries, size, replicas, group, params, gradients: own, keeps, weights }),
    );
    return weights.map(({ weight }) => weight);
  }

  /** To be called when all buckets are there. */
  finish(): void {
    if (this.#o.dtype === 'f32') return;
    const unserved = this.buckets.filter((bucket) => !hasWideGradient(bucket) && this.#wideGradient(bucket) === null);
    if (unserved.length === 0) return;
    this.#staging = this.#plan.tensor('staging', [Math.max(...unserved.map(({ size }) => size))], 'f32');
  }

  /**
   * float32 memory for the initial values of a bucket without a float32 gradient of its own: where it is float32 itself, else
   * another's gradient, which nothing is in yet, else memory for that alone.
   */
  staging(bucket: Bucket): Tensor {
    if (this.#o.dtype === 'f32') return bucket.params;
    return (this.#wideGradient(bucket) ?? (this.#staging as Tensor)).slice(0, bucket.size);
  }

  #wideGradient({ size }: Bucket): Tensor | null {
    return this.buckets.find((other) => hasWideGradient(other) && other.size >= size)?.grads ?? null;
  }

  /** Makes the compute stream wait for parameters that are still being gathered. */
  settle(device: Device): void {
    for (const bucket of this.buckets) bucket.settle(device);
  }

  /** Starts a step: the first gradient of every weight overwrites. */
  reset(): void {
    for (const bucket of this.buckets) bucket.reset();
  }

  /** Parameters held here, without padding. */
  get parameterCount(): number {
    return this.buckets.flatMap((b) => b.entries).reduce((sum, { spec }) => sum + localSize(spec), 0);
  }
}

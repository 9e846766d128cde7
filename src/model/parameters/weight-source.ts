import { createHash } from 'node:crypto';
import type { Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { Bucket } from './bucket.js';
import { localSize, type ParameterSpec } from './parameter.js';

/** Gives the initial value of a parameter: writes the slice that `spec` names to `out`, f32 [rows, cols]. */
export interface WeightSource {
  fill(spec: ParameterSpec, out: Tensor): Promise<void>;
}

/**
 * New weights: normal deviates from a counter-based generator keyed by (seed, parameter name) and counted by the
 * element's global index, so that they are the same on every layout. Norms start at one, biases and B of adapters at zero.
 */
export class RandomWeights implements WeightSource {
  readonly #ops: Ops;
  readonly #seed: bigint;
  readonly #std: number;

  constructor(ops: Ops, seed: number, std: number) {
    this.#ops = ops;
    this.#seed = BigInt(seed);
    this.#std = std;
  }

  fill(spec: ParameterSpec, out: Tensor): Promise<void> {
    if (spec.init === 'one' || spec.init === 'zero') {
      this.#ops.fill(out, spec.init === 'one' ? 1 : 0);
    } else {
      const inputs = spec.globalShape[1] as number;
      const std = spec.init === 'kaiming' ? 1 / Math.sqrt(3 * inputs) : this.#std;
      const place = { row0: spec.rows.start, col0: spec.cols.start, gcols: inputs };
      this.#ops.initNormal(out, place, std, this.#seed, nameKey(spec.name));
    }
    return Promise.resolve();
  }
}

/**
 * Sets every parameter of the buckets from a source, in the model's dtype.
 * @param staging float32 memory for a bucket, free to overwrite
 * @param adopt given each bucket's float32 values, before the staging memory is used again
 */
export async function loadWeights(
  ops: Ops,
  buckets: readonly Bucket[],
  source: WeightSource,
  staging: (bucket: Bucket) => Tensor,
  adopt: (bucket: Bucket, values: Tensor) => void = () => undefined,
): Promise<void> {
  for (const bucket of buckets) {
    const values = staging(bucket);
    ops.fill(values, 0);
    for (const { spec, offset } of bucket.entries) {
      await source.fill(spec, values.slice(offset, localSize(spec), [spec.rows.count, spec.cols.count]));
    }
    if (values.arena !== bucket.params.arena || values.offset !== bucket.params.offset) ops.cast(values, bucket.params);
    adopt(bucket, values);
  }
}

/** 64 bits that stand for a parameter's name. */
export function nameKey(name: string): bigint {
  return createHash('sha256').update(name).digest().readBigUInt64LE(0);
}

import { STREAM, type Device } from './device.js';
import { OPS } from './op-table.js';
import type { OptimizerHyper } from './ops.js';
import type { Tensor } from './tensor.js';

/** Where a contiguous run of elements lies in a global matrix of `gcols` columns: a rectangle. */
export interface MatrixPlace {
  readonly rows: number;
  readonly cols: number;
  readonly row0: number;
  readonly col0: number;
  readonly gcols: number;
}

/**
 * AdamW of a rectangle of a parameter whose p, m, v and g are each f32 or bf16. What is bf16 is rounded stochastically, by
 * random bits that depend on seed, key, the element's place and the update alone.
 * @param t.out cast(p), null where the model reads p itself
 * @param random.key 64 bits that stand for the parameter
 */
export function adamwRounded(
  device: Device,
  t: { p: Tensor; m: Tensor; v: Tensor; g: Tensor; out: Tensor | null; state: Tensor },
  { rows, cols, row0, col0, gcols }: MatrixPlace,
  { beta1, beta2, eps }: Pick<OptimizerHyper, 'beta1' | 'beta2' | 'eps'>,
  weightDecay: number,
  random: { readonly seed: bigint; readonly key: bigint },
): void {
  const scalars = [rows, cols, row0, col0, gcols, beta1, beta2, eps, weightDecay, ...randomWords(random)];
  device.run(OPS.adamwRounded.number, [t.p, t.m, t.v, t.g, t.out, t.state], scalars, STREAM.compute);
}

/** Low and high half of the seed and of the key of a random stream. */
export function randomWords({ seed, key }: { readonly seed: bigint; readonly key: bigint }): number[] {
  return [seed, key].flatMap((x) => [Number(x & 0xffffffffn), Number((x >> 32n) & 0xffffffffn)]);
}

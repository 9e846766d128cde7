import { STREAM, type Device } from './device.js';
import { OPS } from './op-table.js';
import type { Tensor } from './tensor.js';

// The ops of e4m3; ops.def documents them. All of them go to the compute stream.

/** Columns of a block, and its rows where they are not 1. */
export const FP8_BLOCK = 128;
/** Scales of blocks of 128 rows stand in rows of a multiple of so many. */
const SCALES_STEP = 4;

/** A matrix [rows, cols] in e4m3, and the scales of its blocks of `block` rows by 128 columns. */
export interface Codes {
  /** u8 [rows, cols] */
  readonly codes: Tensor;
  /** f32, {@link scaleCount} of them. */
  readonly scales: Tensor;
  readonly block: 1 | typeof FP8_BLOCK;
}

/** A matrix in e4m3 as products take it, and its transpose; null is what no product takes. */
export interface Quantized {
  readonly q: Codes | null;
  readonly t: Codes | null;
}

/** How many scales a matrix in e4m3 has. */
export function scaleCount(rows: number, cols: number, block: Codes['block']): number {
  const across = cols / FP8_BLOCK;
  return block === 1 ? rows * across : (rows / block) * Math.ceil(across / SCALES_STEP) * SCALES_STEP;
}

/** x [rows, cols] in e4m3. */
export function quantize(device: Device, x: Tensor, into: Quantized): void {
  run(device, OPS.fp8Quantize.number, [x], x, into);
}

/** The same of SwiGLU of gateUp [tokens, 2 ffn], which is written nowhere. */
export function swigluFp8(device: Device, gateUp: Tensor, into: Quantized): void {
  const [tokens = 0, wide = 0] = gateUp.shape;
  run(device, OPS.swigluFwdFp8.number, [gateUp], { shape: [tokens, wide / 2] }, into);
}

/** The same of the gradient of gateUp [tokens, 2 ffn], from that of its SwiGLU, dOut [tokens, ffn]. */
export function swigluBwdFp8(device: Device, dOut: Tensor, gateUp: Tensor, into: Quantized): void {
  run(device, OPS.swigluBwdFp8.number, [dOut, gateUp], dOut, into);
}

function run(
  device: Device,
  op: number,
  inputs: readonly Tensor[],
  { shape: [rows = 0, cols = 0] }: { readonly shape: readonly number[] },
  { q, t }: Quantized,
): void {
  const outputs = [q, t].flatMap((side) => [side?.codes ?? null, side?.scales ?? null]);
  device.run(op, [...inputs, ...outputs], [rows, cols, q?.block ?? 1, t?.block ?? 1], STREAM.compute);
}

/** d [m, n] = a b' of e4m3 a [m, k] and b [n, k], added to what d is where `accumulate`. */
export function gemmFp8(device: Device, a: Codes, b: Codes, d: Tensor, accumulate = false): void {
  const [m = 0, k = 0] = a.codes.shape;
  const [n = 0, inner = 0] = b.codes.shape;
  if (inner !== k || d.size !== m * n) {
    throw new RangeError(`e4m3 product of [${a.codes.shape}] x [${b.codes.shape}]' into [${d.shape}]`);
  }
  const tensors = [a.codes, a.scales, b.codes, b.scales, d];
  device.run(OPS.gemmFp8.number, tensors, [m, n, k, a.block, b.block, accumulate ? 1 : 0], STREAM.compute);
}

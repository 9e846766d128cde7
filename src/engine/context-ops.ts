import type { AttentionSizes } from './attention-sizes.js';
import { STREAM, type Device } from './device.js';
import { OPS } from './op-table.js';
import type { Strided, Tensor } from './tensor.js';

// The ops of context parallelism; ops.def documents them. All of them go to the compute stream.

/**
 * Joins an attention over other keys, `part` and `lsePart`, to `out` and `lse`, laid out as `Ops.attention` leaves them.
 * `sum` f32 as `out`, what that is rounded from: at the first join it is taken from `out` itself.
 */
export function attentionJoin(
  device: Device,
  t: { part: Tensor; lsePart: Tensor; out: Tensor; lse: Tensor; sum: Tensor },
  { batch, seq, heads, headDim }: AttentionSizes,
  first: boolean,
): void {
  const scalars = [batch, seq, heads, headDim, Number(first)];
  device.run(OPS.attentionJoin.number, [t.part, t.lsePart, t.out, t.lse, t.sum], scalars, STREAM.compute);
}

/** sum f32 [rows, width] += x, or at first out + x; out is what it rounds to. */
export function accumulate(device: Device, x: Strided, sum: Tensor, out: Strided, first: boolean): void {
  const scalars = [x.rows, x.width, x.stride, out.stride, Number(first)];
  device.run(OPS.accumulate.number, [x.data, sum, out.data], scalars, STREAM.compute);
}

/** out i32 [n] = input + by. */
export function shift(device: Device, input: Tensor, out: Tensor, by: number): void {
  device.run(OPS.shift.number, [input, out], [out.size, by], STREAM.compute);
}

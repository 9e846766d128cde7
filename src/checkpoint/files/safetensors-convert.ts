import { DTYPE_BYTES, type SafetensorsDtype } from './safetensors-header.js';

/** dtypes that hold weights, and can be read as float32. */
export type FloatDtype = 'F64' | 'F32' | 'F16' | 'BF16';

export function isFloatDtype(dtype: SafetensorsDtype): dtype is FloatDtype {
  return dtype === 'F64' || dtype === 'F32' || dtype === 'F16' || dtype === 'BF16';
}

/**
 * Converts stored little-endian elements to float32 (F64 rounds to nearest even, the others are exact). `src` starts at
 * a multiple of the element size in its buffer and holds dst.length elements.
 */
export function toFloat32(dtype: FloatDtype, src: Uint8Array, dst: Float32Array): void {
  const { buffer, byteOffset } = src;
  const n = dst.length;
  if (src.length !== n * DTYPE_BYTES[dtype]) throw new RangeError(`${src.length} bytes are not ${n} ${dtype}`);
  if (dtype === 'F64') dst.set(new Float64Array(buffer, byteOffset, n));
  else if (dtype === 'F32') dst.set(new Float32Array(buffer, byteOffset, n));
  else if (dtype === 'F16') float16ToFloat32(new Uint16Array(buffer, byteOffset, n), dst);
  else bfloat16ToFloat32(new Uint16Array(buffer, byteOffset, n), dst);
}

/** Exact. */
export function bfloat16ToFloat32(src: Uint16Array, dst: Float32Array): void {
  const bits = new Uint32Array(dst.buffer, dst.byteOffset, dst.length);
  for (let i = 0; i < bits.length; i++) bits[i] = (src[i] as number) << 16;
}

/** Rounds to nearest, ties to even; a NaN stays one. */
export function float32ToBfloat16(src: Float32Array, dst: Uint16Array): void {
  const bits = new Uint32Array(src.buffer, src.byteOffset, src.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i] as number;
    const isNaN = (x & 0x7fffffff) > 0x7f800000;
    dst[i] = isNaN ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
}

/** Exact, subnormals included. */
export function float16ToFloat32(src: Uint16Array, dst: Float32Array): void {
  const bits = new Uint32Array(dst.buffer, dst.byteOffset, dst.length);
  for (let i = 0; i < bits.length; i++) {
    const half = src[i] as number;
    const sign = (half & 0x8000) << 16;
    const rest = half & 0x7fff;
    if (rest >= 0x7c00) bits[i] = sign | 0x7f800000 | ((rest & 0x3ff) << 13);
    else if (rest >= 0x400) bits[i] = sign | ((rest << 13) + ((127 - 15) << 23));
    else dst[i] = (sign === 0 ? rest : -rest) * 2 ** -24;
  }
}

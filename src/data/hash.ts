/**
 * Mixes two 32-bit integers into one (as a signed 32-bit integer): a multiply-xorshift finaliser over their combination,
 * good enough to scatter counters. Not for cryptography.
 */
export function mix32(key: number, counter: number): number {
  let x = (key ^ Math.imul(counter, 0x9e3779b1)) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (Math.imul(key, 0x85ebca6b) + (x ^ (x >>> 16))) | 0;
}

/** The upper 32 bits of an integer of up to 53 bits; `value | 0` is the lower half. */
export function high32(value: number): number {
  return Math.floor(value / 2 ** 32) | 0;
}

import { describe, expect, it } from 'vitest';
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  toFloat32,
} from '../../src/checkpoint/files/safetensors-convert.js';

const everyHalf = Uint16Array.from({ length: 65536 }, (_, i) => i);

describe('float16', () => {
  it('every pattern by the definition', () => {
    const got = new Float32Array(65536);
    float16ToFloat32(everyHalf, got);
    const expected = Float32Array.from(everyHalf, (half) => {
      const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
      if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
      return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    });
    // Object.is tells -0 from 0 and takes NaN for equal.
    expect(everyHalf.filter((i) => !Object.is(got[i], expected[i]))).toHaveLength(0);
  });
});

describe('bfloat16', () => {
  const value = (pattern: number): number => {
    const out = new Float32Array(1);
    bfloat16ToFloat32(Uint16Array.of(pattern), out);
    return out[0]!;
  };
  const round = (x: number): number => {
    const out = new Uint16Array(1);
    float32ToBfloat16(Float32Array.of(x), out);
    return out[0]!;
  };

  it('every pattern comes back, NaNs as NaN', () => {
    const floats = new Float32Array(65536);
    bfloat16ToFloat32(everyHalf, floats);
    const back = new Uint16Array(65536);
    float32ToBfloat16(floats, back);
    expect(
      everyHalf.filter((i) => back[i] !== i && !(Number.isNaN(floats[i]) && Number.isNaN(value(back[i]!)))),
    ).toHaveLength(0);
  });

  it.each([
    ['one', 1, 0x3f80],
    ['minus zero', -0, 0x8000],
    ['tie to the even below', 1 + 2 ** -8, 0x3f80],
    ['tie to the even above', 1 + 3 * 2 ** -8, 0x3f82],
    ['just over a tie', 1 + 2 ** -8 + 2 ** -23, 0x3f81],
    ['largest float32 to infinity', 3.4028234663852886e38, 0x7f80],
    ['smallest subnormal to zero', 2 ** -149, 0],
    ['infinity', -Infinity, 0xff80],
  ])('%s', (_, x, pattern) => expect(round(x)).toBe(pattern));

  it('a NaN whose upper half alone would be infinity stays a NaN', () => {
    const nan = new Float32Array(Uint32Array.of(0x7f800001).buffer);
    const out = new Uint16Array(1);
    float32ToBfloat16(nan, out);
    expect(value(out[0]!)).toBeNaN();
  });

  it('rounds to the nearest of the neighbours', () => {
    let state = 12345;
    for (let i = 0; i < 5000; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      const x = new Float32Array(Int32Array.of(state).buffer)[0]!;
      if (!Number.isFinite(x)) continue;
      const pattern = round(x);
      const distance = Math.abs(value(pattern) - x);
      for (const neighbour of [pattern - 1, pattern + 1]) {
        const other = Math.abs(value(neighbour & 0xffff) - x);
        if (Number.isFinite(other) && Number.isFinite(distance)) expect(distance).toBeLessThanOrEqual(other);
      }
    }
  });
});

it('refuses sizes that do not agree', () => {
  expect(() => toFloat32('BF16', new Uint8Array(6), new Float32Array(2))).toThrow(RangeError);
});

import { describe, expect, test } from 'vitest';
import { bytewiseCrc32 } from '../../src/base/crc32.js';
import { loadBinding } from '../../src/engine/load.js';

const binding = loadBinding();
const bytes = Uint8Array.from({ length: 5000 }, (_, i) => (i * i * 31 + (i >> 3)) & 0xff);

describe('block sums are the CRC-32 of each block', () => {
  // Around where 8, 16 and 64 bytes are taken at a time.
  const lengths = [0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 79, 80, 81, 127, 128, 129, 191, 1000, 4096, 4999];
  test.each(lengths)('of %i bytes, from places that are aligned and not', async (length) => {
    for (const start of [0, 1]) {
      const memory = bytes.subarray(start, start + length);
      expect([...(await binding.blockSums(memory, 1 << 20))]).toEqual(length === 0 ? [] : [bytewiseCrc32(memory)]);
    }
  });

  test.each([1, 64, 100, 1024, 4999, 5000, 5001])('of blocks of %i bytes', async (block) => {
    const expected: number[] = [];
    for (let at = 0; at < bytes.length; at += block) expected.push(bytewiseCrc32(bytes.subarray(at, at + block)));
    expect([...(await binding.blockSums(bytes, block))]).toEqual(expected);
  });

  test('memory of zeros, and all ones', async () => {
    for (const value of [0, 0xff]) {
      const memory = new Uint8Array(200).fill(value);
      expect([...(await binding.blockSums(memory, 200))]).toEqual([bytewiseCrc32(memory)]);
    }
  });
});

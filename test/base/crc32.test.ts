import { expect, test } from 'vitest';
import { bytewiseCrc32, crc32 } from '../../src/base/crc32.js';

test('the check value of CRC-32', () => {
  expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
  expect(bytewiseCrc32(Buffer.from('123456789'))).toBe(0xcbf43926);
});

test.each([0, 1, 7, 4096, 100_003])('%i bytes give the same sum with and without zlib, in one piece or two', (size) => {
  const data = Uint8Array.from({ length: size }, (_, i) => (i * 2654435761) >>> 13);
  const cut = Math.floor(size / 3);
  const whole = crc32(data);
  expect(bytewiseCrc32(data)).toBe(whole);
  expect(bytewiseCrc32(data.subarray(cut), bytewiseCrc32(data.subarray(0, cut)))).toBe(whole);
  expect(crc32(data.subarray(cut), crc32(data.subarray(0, cut)))).toBe(whole);
});

import { expect, test } from 'vitest';
import { formatBytes, formatCount, formatDuration, formatSeconds } from '../../src/base/format-amount.js';

test.each([
  [formatBytes, 0, '0 B'],
  [formatBytes, 1023, '1023 B'],
  [formatBytes, 36.8 * 2 ** 20, '36.8 MiB'],
  [formatBytes, 2 ** 40, '1.0 TiB'],
  [formatCount, 812, '812'],
  [formatCount, 999_499, '999k'],
  [formatCount, 999_600, '1.00M'],
  [formatCount, 3_214_592, '3.21M'],
  [formatDuration, 7.4, '0:07'],
  [formatDuration, 754, '12:34'],
  [formatDuration, 3753, '1:02:33'],
  [formatDuration, 90_061, '1d 01:01:01'],
  [formatDuration, Infinity, '-'],
  [formatSeconds, 59.94, '59.9 s'],
  [formatSeconds, 61, '1:01'],
])('%o of %d is %s', (format, value, text) => {
  expect(format(value)).toBe(text);
});

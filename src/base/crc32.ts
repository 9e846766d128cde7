import * as zlib from 'node:zlib';

/** For Node.js before 20.15, whose zlib has no crc32: remainders of every byte by the polynomial 0xedb88320. */
const REMAINDERS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xedb88320 : 0);
  return remainder;
});

/** CRC-32 byte by byte: the same numbers as zlib's, at about a tenth of its speed. */
export function bytewiseCrc32(data: Uint8Array, start = 0): number {
  let crc = ~start;
  for (const byte of data) crc = (crc >>> 8) ^ (REMAINDERS[(crc ^ byte) & 0xff] as number);
  return ~crc >>> 0;
}

/** CRC-32 of `data`, continued from `start`, the CRC of what came before. */
export const crc32: (data: Uint8Array, start?: number) => number =
  (zlib as { crc32?: typeof bytewiseCrc32 }).crc32 ?? bytewiseCrc32;

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { BLOCK_BYTES, BlockChecksums, checksumsOf } from '../../src/checkpoint/files/block-checksums.js';
import { CheckedFile } from '../../src/checkpoint/files/checked-file.js';
import { writeDurably } from '../../src/checkpoint/files/durable-files.js';
import { mbridgeError } from '../data/helpers.js';
import { temporaryFolder } from './runs.js';

function bytes(count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => (i * 31 + (i >> 9)) & 255);
}

const LENGTH = 2 * BLOCK_BYTES + 12_345;

function pieces(of: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  let at = 0;
  return lengths.map((length) => of.subarray(at, (at += length)));
}

test('the checksum of nine digits is the published one', () => {
  expect(checksumsOf(Buffer.from('123456789'))).toEqual({ bytes: 9, crc32: ['cbf43926'] });
});

test.each([[[LENGTH]], [[1, BLOCK_BYTES, BLOCK_BYTES, 12_344]], [[BLOCK_BYTES, 0, BLOCK_BYTES, 12_345]]])(
  'checksums do not depend on the pieces %j',
  (lengths) => {
    const all = bytes(LENGTH);
    const sums = new BlockChecksums();
    for (const piece of pieces(all, lengths)) sums.add(piece);
    expect(sums.finish()).toEqual(checksumsOf(all));
    expect(checksumsOf(all).crc32).toHaveLength(3);
  },
);

test('what was written is read back, from any place, and any bit that turned is found', async () => {
  const path = join(temporaryFolder(), 'file');
  const all = bytes(LENGTH);
  const record = await writeDurably(path, pieces(all, [100, BLOCK_BYTES, LENGTH - BLOCK_BYTES - 100]));
  expect(record).toEqual(checksumsOf(all));
  expect(readFileSync(path).equals(all)).toBe(true);

  const ranges = [
    [0, LENGTH],
    [0, 8],
    [8, 100],
    [BLOCK_BYTES - 5, 10],
    [BLOCK_BYTES - 1, BLOCK_BYTES + 2],
    [LENGTH - 1, 1],
  ] as const;
  const file = await CheckedFile.open(path, record);
  for (const [start, count] of ranges) {
    const dst = new Uint8Array(count);
    await file.read(dst, start);
    expect(Buffer.from(dst).equals(all.subarray(start, start + count))).toBe(true);
  }
  await expect(file.read(new Uint8Array(2), LENGTH - 1)).rejects.toThrow(RangeError);
  await file.close();

  const damaged = Uint8Array.from(all);
  damaged[BLOCK_BYTES + 7] = 255 - (all[BLOCK_BYTES + 7] as number);
  writeFileSync(path, damaged);
  const second = await CheckedFile.open(path, record);
  await second.read(new Uint8Array(BLOCK_BYTES), 0); // the first block is as it was
  for (const read of [() => second.read(new Uint8Array(3), BLOCK_BYTES + 100), () => second.verify()]) {
    const error = await mbridgeError(read);
    expect(error).toMatchObject({ code: 'MB_CHECKPOINT_CHECKSUM', exitCode: 7 });
    expect(error.message).toContain(path);
  }
  await second.close();

  writeFileSync(path, all.subarray(1));
  expect(await mbridgeError(() => CheckedFile.open(path, record))).toMatchObject({ code: 'MB_CHECKPOINT_SIZE' });
  expect(await mbridgeError(() => CheckedFile.open(`${path}x`, record))).toMatchObject({
    code: 'MB_CHECKPOINT_MISSING_FILE',
  });
});

test('a file that is there already is not overwritten', async () => {
  const path = join(temporaryFolder(), 'file');
  writeFileSync(path, 'before');
  const error = await mbridgeError(() => writeDurably(path, [bytes(3)]));
  expect(error).toMatchObject({ code: 'MB_CHECKPOINT_WRITE', exitCode: 7 });
  expect(error.message).toBe(`cannot write ${path}: exists already`);
  expect(readFileSync(path, 'utf8')).toBe('before');
});

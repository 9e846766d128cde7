import { closeSync, readSync, writeSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { checksumsOf } from '../../src/checkpoint/files/block-checksums.js';
import type { CheckpointState } from '../../src/checkpoint/format/checkpoint-format.js';
import {
  clearHeader,
  layOutMemory,
  openCopies,
  sealCopy,
  slotOf,
  type MemoryLayout,
  type MemoryRecord,
} from '../../src/checkpoint/format/memory-copy.js';
import { layOutShard } from '../../src/checkpoint/format/shard-layout.js';
import { loadBinding } from '../../src/engine/load.js';
import { mbridgeError } from '../data/helpers.js';

const SHAPE = [2, 3];
const AREA = { rows: { start: 0, count: 2 }, cols: { start: 0, count: 3 } };
const SHARD = layOutShard('weights-00000.safetensors', [{ tensor: 'w', dtype: 'F32', shape: SHAPE, area: AREA }]);

/** What is in the tensor after an update. */
function valuesOf(step: number): Float32Array {
  return Float32Array.from({ length: 6 }, (_, i) => step * 10 + i);
}

/** Writes the copy of an update, whole or up to its header. */
function write(fd: number, layout: MemoryLayout, which: 0 | 1, step: number, { seal = true } = {}): void {
  const slot = layout.slots[which];
  clearHeader(fd, slot);
  const { position } = slot.files.get(SHARD.file) as { position: number };
  const file = Buffer.concat([SHARD.head, new Uint8Array(valuesOf(step).buffer)]);
  writeSync(fd, file, 0, file.length, position);
  if (!seal) return;
  const pieces = [{ file: SHARD.file, rows: [0, 2], cols: [0, 3] } as const];
  const record: MemoryRecord = {
    files: { [SHARD.file]: checksumsOf(file) },
    tensors: { w: { dtype: 'F32', shape: SHAPE, pieces } },
    positions: { [SHARD.file]: position },
    state: { step } as CheckpointState,
  };
  sealCopy(fd, slot, step, record);
}

function memory(): { path: string; fd: number; layout: MemoryLayout } {
  const layout = layOutMemory([SHARD]);
  const fd = loadBinding().memoryCreate(layout.bytes, layout.reserved);
  onTestFinished(() => {
    closeSync(fd);
  });
  return { path: `/proc/self/fd/${fd}`, fd, layout };
}

async function read(path: string, step: number): Promise<number[]> {
  const copies = openCopies([path], step);
  const values = new Float32Array(6);
  await copies.readFloats('w', AREA, values);
  await copies.close();
  return [...values];
}

function refusal(path: string, step: number): Promise<string> {
  return mbridgeError(() => read(path, step)).then(({ code }) => code);
}

test('of two copies each is read whole, and the older one while the newer is being written', async () => {
  const { path, fd, layout } = memory();
  expect(await refusal(path, 1)).toBe('MB_CHECKPOINT_NOT_COMMITTED');
  for (const [step, which] of [
    [1, 0],
    [2, 1],
    [3, 0],
  ] as const) {
    write(fd, layout, which, step, { seal: false });
    expect(slotOf(fd, step)).toBeUndefined();
    if (step > 1) expect(await read(path, step - 1)).toEqual([...valuesOf(step - 1)]);
    write(fd, layout, which, step);
    expect(slotOf(fd, step)).toBe(which);
    expect(await read(path, step)).toEqual([...valuesOf(step)]);
  }
  expect(await read(path, 2)).toEqual([...valuesOf(2)]);
  expect(await refusal(path, 1)).toBe('MB_CHECKPOINT_NOT_COMMITTED');
});

test.each([
  ['the magic', (l: MemoryLayout) => l.slots[0].header, 'NOT_COMMITTED'],
  ['the update', (l: MemoryLayout) => l.slots[0].header + 15, 'NOT_COMMITTED'],
  ['the length', (l: MemoryLayout) => l.slots[0].header + 30, 'NOT_COMMITTED'],
  ['the checksum', (l: MemoryLayout) => l.slots[0].header + 36, 'NOT_COMMITTED'],
  ['the record', (l: MemoryLayout) => l.slots[0].record + 20, 'CHECKSUM'],
  ['a tensor', (l: MemoryLayout) => (l.slots[0].files.get(SHARD.file)?.position ?? 0) + SHARD.bytes - 1, 'CHECKSUM'],
])('a copy is refused where a bit of %s is another', async (_, at, code) => {
  const { path, fd, layout } = memory();
  write(fd, layout, 0, 1);
  expect(await read(path, 1)).toEqual([...valuesOf(1)]);
  const position = at(layout);
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, position);
  byte.writeUInt8(byte.readUInt8() ^ 16);
  writeSync(fd, byte, 0, 1, position);
  expect(await refusal(path, 1)).toBe(`MB_CHECKPOINT_${code}`);
});

test('copies are refused where one of the ranks has none', async () => {
  const { path, fd, layout } = memory();
  write(fd, layout, 0, 1);
  expect((await mbridgeError(() => openCopies([path, null], 1))).code).toBe('MB_CHECKPOINT_NONE');
  const other = memory();
  write(other.fd, other.layout, 0, 2);
  expect((await mbridgeError(() => openCopies([path, other.path], 1))).code).toBe('MB_CHECKPOINT_NOT_COMMITTED');
});

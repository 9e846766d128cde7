import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { loadBinding } from '../../../src/engine/load.js';
import { KeptMemory } from '../../../src/job/launch/kept-memory.js';

function neverWarns(text: string): void {
  throw new Error(text);
}

/** Memory of two ranks, which this process stands for. */
function keptOfTwo(): { kept: KeptMemory; descriptors: number[] } {
  const kept = new KeptMemory(2);
  const descriptors = [4096, 8192].map((bytes) => loadBinding().memoryCreate(bytes, bytes));
  onTestFinished(() => {
    kept.close();
  });
  for (const [rank, fd] of descriptors.entries()) kept.take(rank, process.pid, fd, neverWarns);
  return { kept, descriptors };
}

test('an update is whole once all ranks have copied it, and restarts go on from the last that is', () => {
  const { kept } = keptOfTwo();
  expect(kept.whole).toBeNull();
  const calls: [rank: number, step: number, announced: number | null, whole: number | null][] = [
    [0, 1, null, null],
    [1, 1, 1, 1],
    [1, 2, null, 1],
    [0, 2, 2, 2],
    [0, 3, null, 2],
  ];
  for (const [rank, step, announced, whole] of calls) {
    expect(kept.copied(rank, step)).toBe(announced);
    expect(kept.whole).toBe(whole);
  }
  // What a rank had copied of a later update is of another attempt.
  expect(kept.begin(2).step).toBe(2);
  expect(kept.copied(1, 3)).toBeNull();
  expect(kept.whole).toBe(2);
  expect(kept.begin(null).step).toBeNull();
  expect(kept.whole).toBeNull();
});

test('memory outlives the process that gave it, and ends with its keeper', () => {
  const { kept, descriptors } = keptOfTwo();
  for (const fd of descriptors) closeSync(fd);
  const { paths } = kept.begin(null);
  const opened = paths.map((path) => openSync(path ?? '', 'r'));
  expect(opened.map((fd) => fstatSync(fd).size)).toEqual([4096, 8192]);
  for (const fd of opened) closeSync(fd);
  kept.close();
  for (const path of paths) expect(() => readFileSync(path ?? '')).toThrow(/ENOENT/);
});

test('a rank whose memory is not there has copied nothing', () => {
  const { kept } = keptOfTwo();
  for (const rank of [0, 1]) kept.copied(rank, 1);
  kept.take(1, process.pid, 1 << 20, neverWarns); // as of a process that has just ended
  expect(kept.whole).toBeNull();
  // The others are not kept waiting.
  expect([kept.copied(0, 2), kept.copied(1, 2)]).toEqual([null, 2]);
  expect(kept.whole).toBeNull();
  expect(kept.begin(null).paths[1]).toBeNull();
});

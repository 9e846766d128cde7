import { expect, test } from 'vitest';
import { Progress } from '../../../src/data/prepare/progress.js';

const FILES = ['a.txt', 'b.txt'].map((path) => ({ path, kind: 'text' as const, bytes: 50e6, mtimeMs: 0 }));

/** Progress by a clock of the test's own, and what it wrote. */
function at(isTTY: boolean): { progress: Progress; wait: (seconds: number) => void; written: string[] } {
  const written: string[] = [];
  let now = 0;
  const progress = new Progress(FILES, { isTTY, columns: 120, write: (text: string) => written.push(text) }, () => now);
  return { progress, wait: (seconds) => void (now += 1000 * seconds), written };
}

test.each([
  [true, '\r\x1b[K', ''],
  [false, '', '\n'],
])('rate, share and time left (terminal: %s)', (isTTY, before, after) => {
  const { progress, wait, written } = at(isTTY);
  progress.done(FILES[0]!, true);
  wait(10);
  progress.read(25e6);
  const text = '1/2 files, 75.0 MB of 100.0 MB (75 %), 2.5 MB/s, 0 tokens/s, 0:10 left';
  expect(written).toEqual([`${before}${text}${after}`]);
  wait(0.1);
  progress.wrote(5);
  expect(written).toHaveLength(1);
});

test('bad lines are shown, but not all of them, and on a line of their own', () => {
  const { progress, wait, written } = at(true);
  wait(1);
  progress.read(1);
  for (let i = 1; i <= 30; i++) progress.bad(`a.txt:${i}`, 'bad \x1b[31m');
  expect(written[1]).toBe('\r\x1b[K');
  expect(written[2]).toBe('warning: a.txt:1: left out: bad ?[31m\n');
  expect(written.filter((text) => text.startsWith('warning'))).toHaveLength(21);
});

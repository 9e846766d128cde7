import { describe, expect, test } from 'vitest';
import {
  flatRange,
  intersect,
  tilingProblem,
  wholeOf,
  type Rectangle,
} from '../../../src/model/parameters/rectangle.js';

const area = (r0: number, rows: number, c0: number, cols: number): Rectangle => ({
  rows: { start: r0, count: rows },
  cols: { start: c0, count: cols },
});

/** Global [row, col] of every element, in row-major order. */
function elements({ rows, cols }: Rectangle): string[] {
  const at = (start: number, count: number): number[] => Array.from({ length: count }, (_, i) => start + i);
  return at(rows.start, rows.count).flatMap((r) => at(cols.start, cols.count).map((c) => `${r},${c}`));
}

describe('flatRange', () => {
  test('every range of a rectangle is at most three rectangles with the same elements in the same order', () => {
    const whole = area(3, 4, 10, 5);
    const all = elements(whole);
    for (let start = 0; start <= all.length; start++) {
      for (let count = 0; start + count <= all.length; count++) {
        const parts = flatRange(whole, start, count);
        expect(parts.length).toBeLessThanOrEqual(3);
        expect(parts.flatMap(elements)).toEqual(all.slice(start, start + count));
        for (const part of parts) expect(elements(part)[0]).toBe(all[start + part.offset]);
      }
    }
  });

  test.each([
    [0, 20, 1],
    [5, 10, 1],
    [2, 2, 1],
    [2, 10, 3],
    [2, 8, 2],
    [2, 6, 2],
  ])('%d+%d of rows of five is %d rectangles', (start, count, parts) => {
    expect(flatRange(area(0, 4, 0, 5), start, count)).toHaveLength(parts);
  });

  test('a range that leaves the rectangle is refused', () => {
    expect(() => flatRange(area(0, 2, 0, 2), 3, 2)).toThrow(RangeError);
  });
});

test.each<[Rectangle, Rectangle, Rectangle | null]>([
  [area(0, 4, 0, 4), area(2, 4, 1, 2), area(2, 2, 1, 2)],
  [area(0, 4, 0, 4), area(4, 1, 0, 4), null],
  [area(0, 4, 0, 4), area(0, 4, 4, 1), null],
  [area(1, 2, 1, 2), area(0, 9, 0, 9), area(1, 2, 1, 2)],
])('intersect %j and %j', (a, b, shared) => {
  expect(intersect(a, b)).toEqual(shared);
  expect(intersect(b, a)).toEqual(shared);
});

test.each<[readonly number[], Rectangle]>([
  [[], area(0, 1, 0, 1)],
  [[7], area(0, 1, 0, 7)],
  [[3, 5], area(0, 3, 0, 5)],
  [[2, 3, 4], area(0, 2, 0, 12)],
])('wholeOf %j', (shape, whole) => {
  expect(wholeOf(shape)).toEqual(whole);
});

test.each<[string, Rectangle[], RegExp | undefined]>([
  ['whole', [area(0, 4, 0, 4)], undefined],
  ['quarters', [area(2, 2, 2, 2), area(0, 2, 0, 2), area(0, 2, 2, 2), area(2, 2, 0, 2)], undefined],
  ['three of a flat range', [area(0, 1, 0, 3), area(0, 1, 3, 1), area(1, 3, 0, 4)], undefined],
  ['a hole', [area(0, 2, 0, 4), area(2, 2, 0, 3)], /hold 14 of 16/],
  ['a hole and an overlap', [area(0, 2, 0, 4), area(1, 2, 0, 4)], /\[1:3, 0:4\] overlaps \[0:2, 0:4\]/],
  ['outside', [area(0, 4, 0, 5)], /outside/],
])('tiling: %s', (_, parts, problem) => {
  const found = tilingProblem(area(0, 4, 0, 4), parts);
  if (problem === undefined) expect(found).toBeUndefined();
  else expect(found).toMatch(problem);
});

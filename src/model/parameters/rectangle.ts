import type { Tensor } from '../../engine/tensor.js';
import type { Range } from './parameter.js';

/** A rectangle of a matrix. A vector is a matrix of one row, a scalar one of one element. */
export interface Rectangle {
  readonly rows: Range;
  readonly cols: Range;
}

/** A rectangle whose elements lie row after row in some memory, from `offset` on (in elements). */
export interface PlacedRectangle extends Rectangle {
  readonly offset: number;
}

/** A rectangle of a named tensor. */
export interface Piece extends Rectangle {
  readonly name: string;
}

/** A piece that this rank holds, [rows, cols]. */
export interface HeldPiece {
  readonly piece: Piece;
  readonly tensor: Tensor;
}

/** The whole of a tensor, as a matrix of its first dimension by all others. */
export function wholeOf(shape: readonly number[]): Rectangle {
  const rows = shape.length < 2 ? 1 : (shape[0] as number);
  const cols = (shape.length < 2 ? shape : shape.slice(1)).reduce((product, n) => product * n, 1);
  return { rows: { start: 0, count: rows }, cols: { start: 0, count: cols } };
}

export function areaOf({ rows, cols }: Rectangle): number {
  return rows.count * cols.count;
}

function endOf(range: Range): number {
  return range.start + range.count;
}

/** Whether `inner` lies wholly in `outer`. */
export function contains(outer: Rectangle, inner: Rectangle): boolean {
  return (['rows', 'cols'] as const).every(
    (axis) => inner[axis].start >= outer[axis].start && endOf(inner[axis]) <= endOf(outer[axis]),
  );
}

/** What two rectangles share, or null. */
export function intersect(a: Rectangle, b: Rectangle): Rectangle | null {
  const rows = overlap(a.rows, b.rows);
  const cols = overlap(a.cols, b.cols);
  return rows.count > 0 && cols.count > 0 ? { rows, cols } : null;
}

function overlap(a: Range, b: Range): Range {
  const start = Math.max(a.start, b.start);
  return { start, count: Math.min(endOf(a), endOf(b)) - start };
}

/** What is left of a rectangle without a part of it: above, below, left and right. */
export function subtract({ rows, cols }: Rectangle, part: Rectangle): Rectangle[] {
  const between = (start: number, end: number): Range => ({ start, count: end - start });
  return [
    { rows: between(rows.start, part.rows.start), cols },
    { rows: between(endOf(part.rows), endOf(rows)), cols },
    { rows: part.rows, cols: between(cols.start, part.cols.start) },
    { rows: part.rows, cols: between(endOf(part.cols), endOf(cols)) },
  ].filter((rest) => areaOf(rest) > 0);
}

/**
 * Elements [start, start + count) of a rectangle's row-major order, as at most three rectangles: the end of a first
 * row, whole rows, the beginning of a last row. Offsets count from `start`.
 */
export function flatRange(whole: Rectangle, start: number, count: number): PlacedRectangle[] {
  const { rows, cols } = whole;
  const width = cols.count;
  const end = start + count;
  if (start < 0 || count < 0 || end > areaOf(whole))
    throw new RangeError(`elements ${start}+${count} of ${areaOf(whole)}`);
  const parts: PlacedRectangle[] = [];
  for (let at = start; at < end;) {
    const row = Math.floor(at / width);
    const col = at % width;
    const wholeRows = col === 0 ? Math.floor((end - at) / width) : 0;
    const part: Rectangle =
      wholeRows > 0
        ? { rows: { start: rows.start + row, count: wholeRows }, cols }
        : {
            rows: { start: rows.start + row, count: 1 },
            cols: { start: cols.start + col, count: Math.min(width - col, end - at) },
          };
    parts.push({ ...part, offset: at - start });
    at += areaOf(part);
  }
  return parts;
}

/**
 * Whether `parts` cover `whole` exactly once.
 * @returns undefined, or what is wrong in words
 */
export function tilingProblem(whole: Rectangle, parts: readonly Rectangle[]): string | undefined {
  const outside = parts.find((part) => !contains(whole, part));
  if (outside !== undefined) return `${describeRectangle(outside)} lies outside of ${describeRectangle(whole)}`;
  const area = parts.reduce((sum, part) => sum + areaOf(part), 0);
  if (area !== areaOf(whole)) return `its pieces hold ${area} of ${areaOf(whole)} elements`;
  const sorted = [...parts].sort((a, b) => a.rows.start - b.rows.start);
  let open: Rectangle[] = [];
  for (const part of sorted) {
    open = open.filter((other) => endOf(other.rows) > part.rows.start);
    const twice = open.find((other) => intersect(other, part) !== null);
    if (twice !== undefined) return `${describeRectangle(part)} overlaps ${describeRectangle(twice)}`;
    open.push(part);
  }
  return undefined;
}

/** `[0:128, 64:128]`, as numpy would take it. */
export function describeRectangle({ rows, cols }: Rectangle): string {
  return `[${rows.start}:${endOf(rows)}, ${cols.start}:${endOf(cols)}]`;
}

import type { Range } from '../parameters/parameter.js';

/** A rectangle of a named tensor. */
export interface Piece {
  readonly name: string;
  readonly rows: Range;
  readonly cols: Range;
}

/** What each rank of a group holds; one that holds nothing may be left out. */
export type Placement = ReadonlyMap<number, readonly Piece[]>;

/** A rectangle that one rank brings another; both may be the same. */
export interface Move extends Piece {
  readonly from: number;
  readonly to: number;
}

/**
 * The rectangles that fill `target` from `source`: each element of it once, from the rank itself where it has it, else from
 * one that has it, spread over those. Pure, so that all ranks have the same list.
 * @throws RangeError for a part of the target that no rank of the source has
 */
export function planTransfer(source: Placement, target: Placement): Move[] {
  const holders = new Map<string, { rank: number; piece: Piece }[]>();
  for (const [rank, pieces] of source) {
    for (const piece of pieces) {
      const known = holders.get(piece.name);
      if (known === undefined) holders.set(piece.name, [{ rank, piece }]);
      else known.push({ rank, piece });
    }
  }
  const moves: Move[] = [];
  for (const [to, pieces] of target) {
    for (const wanted of pieces) {
      const known = holders.get(wanted.name) ?? [];
      const own = known.filter(({ rank }) => rank === to);
      const others = known.filter(({ rank }) => rank !== to);
      const first = others.length === 0 ? 0 : to % others.length;
      const order = [...own, ...others.slice(first), ...others.slice(0, first)];
      const open: Piece[] = [wanted];
      for (let rest = open.pop(); rest !== undefined; rest = open.pop()) {
        const { name, rows, cols } = rest;
        const found = order.map(({ rank, piece }) => ({ rank, part: overlap(piece, { name, rows, cols }) }));
        const hit = found.find(({ part }) => part !== null);
        if (hit?.part == null) {
          throw new RangeError(`rows ${rows.start} to ${end(rows)} of ${name} are not in the source`);
        }
        moves.push({ ...hit.part, from: hit.rank, to });
        open.push(...without(rest, hit.part));
      }
    }
  }
  return moves;
}

function end({ start, count }: Range): number {
  return start + count;
}

function common(a: Range, b: Range): Range | null {
  const start = Math.max(a.start, b.start);
  const count = Math.min(end(a), end(b)) - start;
  return count > 0 ? { start, count } : null;
}

function overlap(a: Piece, b: Piece): Piece | null {
  const [rows, cols] = [common(a.rows, b.rows), common(a.cols, b.cols)];
  return rows === null || cols === null ? null : { name: a.name, rows, cols };
}

/** What is left of a rectangle without a part of it: above, below, left and right. */
function without({ name, rows, cols }: Piece, part: Piece): Piece[] {
  const between = (start: number, stop: number): Range => ({ start, count: stop - start });
  return [
    { name, rows: between(rows.start, part.rows.start), cols },
    { name, rows: between(end(part.rows), end(rows)), cols },
    { name, rows: part.rows, cols: between(cols.start, part.cols.start) },
    { name, rows: part.rows, cols: between(end(part.cols), end(cols)) },
  ].filter((piece) => piece.rows.count > 0 && piece.cols.count > 0);
}

/** Moves between ranks in rounds, in each of which no rank sends or receives more than `most` elements, if one move is not more. */
export function roundsOf(moves: readonly Move[], most: number): Move[][] {
  const rounds: Move[][] = [];
  let sent = new Map<number, number>();
  let received = new Map<number, number>();
  for (const move of moves) {
    const size = move.rows.count * move.cols.count;
    const [out, into] = [(sent.get(move.from) ?? 0) + size, (received.get(move.to) ?? 0) + size];
    if (rounds.length === 0 || out > most || into > most) {
      rounds.push([]);
      sent = new Map([[move.from, size]]);
      received = new Map([[move.to, size]]);
    } else {
      sent.set(move.from, out);
      received.set(move.to, into);
    }
    (rounds.at(-1) as Move[]).push(move);
  }
  return rounds;
}

import { areaOf, describeRectangle, intersect, subtract, type Piece, type Rectangle } from '../parameters/rectangle.js';

/** What each rank of a group holds; one that holds nothing may be left out. */
export type Placement = ReadonlyMap<number, readonly Piece[]>;

/** A rectangle that one rank brings another; both may be the same. */
export interface Move extends Piece {
  readonly from: number;
  readonly to: number;
}

interface Holder {
  readonly rank: number;
  readonly area: Rectangle;
}

/**
 * The rectangles that fill `target` from `source`: each element of it once, from the rank itself where it has it, else from
 * one that has it, spread over those. Pure, so that all ranks have the same list.
 * @throws RangeError for a part of the target that no rank of the source has
 */
export function planTransfer(source: Placement, target: Placement): Move[] {
  const holders = new Map<string, Holder[]>();
  for (const [rank, pieces] of source) {
    for (const { name, ...area } of pieces) {
      const known = holders.get(name);
      if (known === undefined) holders.set(name, [{ rank, area }]);
      else known.push({ rank, area });
    }
  }
  return [...target].flatMap(([to, pieces]) =>
    pieces.flatMap(({ name, ...wanted }) => {
      const parts = partsOf(wanted, inOrder(holders.get(name) ?? [], to));
      if (Array.isArray(parts)) return parts.map(({ rank, area }): Move => ({ name, ...area, from: rank, to }));
      throw new RangeError(`${describeRectangle(parts.missing)} of ${name} is not in the source`);
    }),
  );
}

/** The rank itself, then the others, from another one for each rank. */
function inOrder(holders: readonly Holder[], to: number): Holder[] {
  const others = holders.filter(({ rank }) => rank !== to);
  const first = others.length === 0 ? 0 : to % others.length;
  return [...holders.filter(({ rank }) => rank === to), ...others.slice(first), ...others.slice(0, first)];
}

function partsOf(wanted: Rectangle, holders: readonly Holder[]): Holder[] | { readonly missing: Rectangle } {
  const parts: Holder[] = [];
  let open: Rectangle[] = [wanted];
  for (const { rank, area } of holders) {
    open = open.flatMap((rest) => {
      const part = intersect(rest, area);
      if (part === null) return [rest];
      parts.push({ rank, area: part });
      return subtract(rest, part);
    });
    if (open.length === 0) return parts;
  }
  return { missing: open[0] as Rectangle };
}

/**
 * Moves in rounds, in each of which no rank sends or receives more than `most` elements: a move of more is cut by rows, of
 * which one always fits.
 */
export function roundsOf(moves: readonly Move[], most: number): Move[][] {
  const rounds: Move[][] = [];
  let sent = new Map<number, number>();
  let received = new Map<number, number>();
  for (const move of moves.flatMap((each) => cutByRows(each, most))) {
    const size = areaOf(move);
    const out = (sent.get(move.from) ?? 0) + size;
    const into = (received.get(move.to) ?? 0) + size;
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

function cutByRows(move: Move, most: number): Move[] {
  const { start, count } = move.rows;
  const each = Math.max(1, Math.floor(most / move.cols.count));
  return Array.from({ length: Math.ceil(count / each) }, (_, i) => {
    return { ...move, rows: { start: start + i * each, count: Math.min(each, count - i * each) } };
  });
}

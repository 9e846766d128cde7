import { MbridgeError } from '../../base/errors.js';

/** One way to give every rank of a grid coordinates. The first dimension varies fastest. */
export interface Factorisation {
  readonly shape: readonly number[];
  readonly dimNames: readonly string[];
}

/**
 * A copy, after checking that every dimension has a name of its own and a positive size.
 * @param what how errors call it
 */
export function checkedFactorisation(
  shape: readonly number[],
  dimNames: readonly string[],
  what: string,
): Factorisation {
  if (shape.length !== dimNames.length) {
    throw gridError('LENGTHS', `${what} has ${shape.length} sizes but ${dimNames.length} dimension names`);
  }
  if (shape.length === 0) throw gridError('EMPTY', `${what} has no dimensions`);
  refuseRepeated(dimNames, `the dimension names of ${what}`);
  shape.forEach((size, i) => {
    if (!Number.isSafeInteger(size) || size < 1) {
      throw gridError('SIZE', `dimension '${dimNames[i]}' of ${what} must be a positive integer, got ${size}`);
    }
  });
  return { shape: [...shape], dimNames: [...dimNames] };
}

export function sizeOf({ shape }: Factorisation): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The requested dimensions as their indices, ascending: the order of a request does not matter. */
export function dimIndices(f: Factorisation, dims: readonly string[], what: string): number[] {
  if (dims.length === 0) throw gridError('EMPTY', `no dimensions requested of ${what}`);
  refuseRepeated(dims, 'the requested dimensions');
  const indices = dims.map((dim) => {
    const index = f.dimNames.indexOf(dim);
    if (index >= 0) return index;
    throw gridError('UNKNOWN_DIM', `'${dim}' is not a dimension of ${what}`, {
      hint: `its dimensions are ${f.dimNames.join(', ')}`,
    });
  });
  return indices.sort((a, b) => a - b);
}

/**
 * The groups of ranks that differ only in the given dimensions. Ranks are in the grid's order inside a group, groups in
 * that of their first ranks, and every rank of the grid is in exactly one group.
 * @param ranks of the grid, in its order
 */
export function enumerate(f: Factorisation, indices: readonly number[], ranks: readonly number[]): number[][] {
  const groups = new Map<number, number[]>();
  ranks.forEach((rank, place) => {
    // The place with the requested coordinates set to 0 names the group, and is that of its first member.
    let first = place;
    let stride = 1;
    f.shape.forEach((size, i) => {
      if (indices.includes(i)) first -= (Math.floor(place / stride) % size) * stride;
      stride *= size;
    });
    const group = groups.get(first);
    if (group === undefined) groups.set(first, [rank]);
    else group.push(rank);
  });
  return [...groups.values()];
}

export function sameLists(a: readonly (readonly number[])[], b: readonly (readonly number[])[]): boolean {
  return a.length === b.length && a.every((list, i) => sameRanks(list, b[i]!));
}

export function sameRanks(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((rank, i) => rank === b[i]);
}

export function refuseRepeated(names: readonly string[], what: string): void {
  const repeated = names.find((name, i) => names.indexOf(name) !== i);
  if (repeated !== undefined) throw gridError('REPEATED_DIM', `'${repeated}' is repeated in ${what}`);
}

export function gridError(
  code: string,
  message: string,
  options: { hint?: string; details?: Record<string, unknown> } = {},
): MbridgeError {
  return new MbridgeError('config', `MB_GRID_${code}`, message, options);
}

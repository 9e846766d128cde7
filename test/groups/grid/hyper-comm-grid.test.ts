import { describe, expect, it } from 'vitest';
import { HyperCommGrid, type HyperCommGridOptions } from '../../../src/groups/grid/hyper-comm-grid.js';
import { NON_MEMBER } from '../../../src/groups/grid/process-group.js';
import { Rendezvous, type TestGroup } from './rendezvous.js';

const DIMS = ['tp', 'cp', 'dp', 'pp'];

function grid(shape: number[], options: Partial<HyperCommGridOptions> = {}): HyperCommGrid {
  const size = shape.reduce((a, b) => a * b, 1);
  return new HyperCommGrid({ shape, dimNames: DIMS, worldSize: size, backend: 'shm', ...options });
}

/** "0,1 2,3" as rank lists. */
function lists(text: string): number[][] {
  return text.split(' ').map((list) => list.split(',').map(Number));
}

function throwing(code: string, message?: RegExp): unknown {
  return expect.objectContaining({
    code: `MB_GRID_${code}`,
    exitCode: 3,
    message: message === undefined ? expect.any(String) : expect.stringMatching(message),
  });
}

/** Every non-empty subset of some names. */
function subsets(names: readonly string[]): string[][] {
  return Array.from({ length: 2 ** names.length - 1 }, (_, bits) => names.filter((_, i) => ((bits + 1) >> i) & 1));
}

describe('rankEnum', () => {
  // Rank lists of Megatron-Core's HyperCommGrid for the same shapes.
  it.each([
    [[2, 1, 2, 2], 'tp', '0,1 2,3 4,5 6,7'],
    [[2, 1, 2, 2], 'cp', '0 1 2 3 4 5 6 7'],
    [[2, 1, 2, 2], 'dp', '0,2 1,3 4,6 5,7'],
    [[2, 1, 2, 2], 'pp', '0,4 1,5 2,6 3,7'],
    [[2, 1, 2, 2], 'tp pp', '0,1,4,5 2,3,6,7'],
    [[2, 1, 2, 2], 'tp cp', '0,1 2,3 4,5 6,7'],
    [[2, 1, 2, 2], 'dp cp', '0,2 1,3 4,6 5,7'],
    [[2, 1, 2, 2], 'tp cp dp', '0,1,2,3 4,5,6,7'],
    [[2, 1, 2, 2], 'tp dp', '0,1,2,3 4,5,6,7'],
    [[2, 1, 2, 2], 'dp pp', '0,2,4,6 1,3,5,7'],
    [[2, 1, 2, 2], 'tp cp pp', '0,1,4,5 2,3,6,7'],
    [[2, 1, 2, 2], 'tp cp dp pp', '0,1,2,3,4,5,6,7'],
    [[2, 2, 2, 1], 'tp', '0,1 2,3 4,5 6,7'],
    [[2, 2, 2, 1], 'cp', '0,2 1,3 4,6 5,7'],
    [[2, 2, 2, 1], 'dp', '0,4 1,5 2,6 3,7'],
    [[2, 2, 2, 1], 'tp cp', '0,1,2,3 4,5,6,7'],
    [[2, 2, 2, 1], 'dp cp', '0,2,4,6 1,3,5,7'],
    [[2, 2, 2, 1], 'tp dp', '0,1,4,5 2,3,6,7'],
    [[2, 2, 2, 2], 'cp', '0,2 1,3 4,6 5,7 8,10 9,11 12,14 13,15'],
    [[2, 2, 2, 2], 'dp', '0,4 1,5 2,6 3,7 8,12 9,13 10,14 11,15'],
    [[2, 2, 2, 2], 'pp', '0,8 1,9 2,10 3,11 4,12 5,13 6,14 7,15'],
    [[2, 2, 2, 2], 'dp cp', '0,2,4,6 1,3,5,7 8,10,12,14 9,11,13,15'],
    [[2, 2, 2, 2], 'tp pp', '0,1,8,9 2,3,10,11 4,5,12,13 6,7,14,15'],
  ])('of %j by %s', (shape, dims, expected) => {
    const forwards = dims.split(' ');
    expect(grid(shape).rankEnum(forwards)).toEqual(lists(expected));
    expect(grid(shape).rankEnum(forwards.toReversed())).toEqual(lists(expected));
    const shifted = grid(shape, { rankOffset: 8, worldSize: 24 }).rankEnum(forwards);
    expect(shifted).toEqual(lists(expected).map((list) => list.map((rank) => rank + 8)));
  });

  it('works for any names, and for large grids', () => {
    const abc = new HyperCommGrid({ shape: [2, 2, 2], dimNames: ['a', 'b', 'c'], worldSize: 8, backend: 'shm' });
    expect(abc.rankEnum(['c'])).toEqual(lists('0,4 1,5 2,6 3,7'));
    expect(abc.rankEnum(['b', 'a'])).toEqual(lists('0,1,2,3 4,5,6,7'));
    const big = new HyperCommGrid({
      shape: [2, 3, 4, 5],
      dimNames: ['tp', 'cp', 'pp', 'dp'],
      worldSize: 120,
      backend: 'shm',
    });
    expect(big.rankEnum(['dp']).map((list) => list.length)).toEqual(new Array(24).fill(5));
  });

  it('agrees with brute force over coordinates, for many shapes, offsets and dim sets', () => {
    const sizes = [1, 2, 3];
    for (const a of sizes)
      for (const b of sizes)
        for (const c of sizes)
          for (const d of [1, 2])
            for (const rankOffset of [0, 5]) {
              const shape = [a, b, c, d];
              const worldSize = rankOffset + a * b * c * d + 1;
              const made = grid(shape, { rankOffset, worldSize });
              // Independent: all coordinate tuples, in nested loops, and an equality of the other coordinates.
              const places: { rank: number; at: Record<string, number> }[] = [];
              for (let pp = 0; pp < d; pp++)
                for (let dp = 0; dp < c; dp++)
                  for (let cp = 0; cp < b; cp++)
                    for (let tp = 0; tp < a; tp++)
                      places.push({ rank: rankOffset + tp + a * (cp + b * (dp + c * pp)), at: { tp, cp, dp, pp } });
              for (const { rank, at } of places) expect(made.coordinates(rank)).toEqual(at);
              for (const dims of subsets(DIMS)) {
                const expected: number[][] = [];
                for (const { rank, at } of places.toSorted((x, y) => x.rank - y.rank)) {
                  if (expected.flat().includes(rank)) continue;
                  const others = DIMS.filter((dim) => !dims.includes(dim));
                  const group = places.filter((place) => others.every((dim) => place.at[dim] === at[dim]));
                  expected.push(group.map((place) => place.rank).sort((x, y) => x - y));
                }
                expect(made.rankEnum(dims), `${shape.join()} + ${rankOffset} by ${dims.join()}`).toEqual(expected);
              }
            }
  });

  it('keeps copies of its arguments', () => {
    const shape = [2, 2];
    const dimNames = ['tp', 'pp'];
    const made = new HyperCommGrid({ shape, dimNames, worldSize: 4, backend: 'shm' });
    shape[0] = 9;
    dimNames[0] = 'x';
    expect([made.shape, made.dimNames, made.size]).toEqual([[2, 2], ['tp', 'pp'], 4]);
    expect(made.rankEnum(['tp'])).toEqual(lists('0,1 2,3'));
  });

  it('says which ranks it covers', () => {
    const part = grid([2, 1, 1, 1], { rankOffset: 2, worldSize: 8 });
    expect([0, 1, 2, 3, 4].map((rank) => part.isRankInGrid(rank))).toEqual([false, false, true, true, false]);
    expect(() => part.coordinates(4)).toThrow(throwing('RANK', /rank 4 .* 2-3/));
  });
});

describe('errors', () => {
  const base = { shape: [2, 2], dimNames: ['tp', 'pp'], worldSize: 4, backend: 'shm' };
  it.each<[string, Partial<HyperCommGridOptions>, string]>([
    ['lengths, before anything else', { shape: [2, 0, 2], rankOffset: -1 }, 'LENGTHS'],
    ['no dimensions', { shape: [], dimNames: [] }, 'EMPTY'],
    ['repeated names', { dimNames: ['tp', 'tp'] }, 'REPEATED_DIM'],
    ['a zero size', { shape: [2, 0] }, 'SIZE'],
    ['a negative size', { shape: [-2, -2] }, 'SIZE'],
    ['a fractional size', { shape: [2, 1.5] }, 'SIZE'],
    ['a negative offset, before the size', { rankOffset: -1, worldSize: 2 }, 'OFFSET'],
    ['no world', { worldSize: 0 }, 'WORLD'],
    ['more ranks than the world', { worldSize: 3 }, 'OVERSIZED'],
    ['an offset that leaves too few', { rankOffset: 1 }, 'OVERSIZED'],
    ['an offset beyond the world', { rankOffset: 9 }, 'OVERSIZED'],
  ])('refuses %s', (_, change, code) => {
    expect(() => new HyperCommGrid({ ...base, ...change })).toThrow(throwing(code));
  });

  it('refuses bad requests, in every call', async () => {
    const made = new HyperCommGrid(base);
    const runtime = new Rendezvous(4).runtime(0);
    for (const [dims, options, code] of [
      [['tp', 'ep'], {}, 'UNKNOWN_DIM'],
      [['tp', 'tp'], {}, 'REPEATED_DIM'],
      [[], {}, 'EMPTY'],
      [['tp'], { view: 'z' }, 'UNKNOWN_VIEW'],
    ] as const) {
      expect(() => made.rankEnum(dims, options)).toThrow(throwing(code));
      expect(() => made.getPg(dims, options)).toThrow(throwing(code));
      await expect(made.createPg(dims, runtime, options)).rejects.toEqual(throwing(code));
    }
    expect(() => made.getPg(['tp'])).toThrow(throwing('NOT_CREATED', /'tp'/));
  });
});

describe('createPg', () => {
  it('gives every rank its group, and the same to a lookup in any order', async () => {
    const world = new Rendezvous(16);
    const ranks = [8, 9, 10, 11, 12, 13, 14, 15];
    const grids = await Promise.all(
      ranks.map(async (rank) => {
        const made = grid([2, 1, 2, 2], { rankOffset: 8, worldSize: 16 });
        const runtime = world.runtime(rank);
        const [tp, mp] = [await made.createPg(['tp'], runtime), await made.createPg(['pp', 'tp'], runtime)];
        expect(made.getPg(['tp'])).toBe(tp);
        expect(made.getPg(['tp', 'pp'])).toBe(mp);
        await expect(made.createPg(['tp', 'pp'], runtime)).rejects.toEqual(throwing('CREATED', /'pp-tp'/));
        return [tp, mp] as TestGroup[];
      }),
    );
    expect(grids[3]!.map(({ name, ranks, rank, size }) => ({ name, ranks, rank, size }))).toEqual([
      { name: 'tp', ranks: [10, 11], rank: 1, size: 2 },
      { name: 'pp-tp', ranks: [10, 11, 14, 15], rank: 1, size: 4 },
    ]);
    expect(world.calls.slice(8)).toEqual(new Array(8).fill(['tp', 'pp-tp']));
  });

  it('refuses a second creation even while the first is under way', async () => {
    const made = grid([2, 1, 1, 1]);
    const world = new Rendezvous(2);
    const runtime = world.runtime(0);
    const first = made.createPg(['tp'], runtime);
    await expect(made.createPg(['tp'], runtime)).rejects.toEqual(throwing('CREATED'));
    expect(() => made.getPg(['tp'])).toThrow(throwing('NOT_CREATED'));
    const other = grid([2, 1, 1, 1]).createPg(['tp'], world.runtime(1));
    expect(await first).toMatchObject({ rank: 0, ranks: [0, 1] });
    expect(await other).toMatchObject({ rank: 1, ranks: [0, 1] });
  });

  it('shares groups of the same ranks instead of making a second communicator', async () => {
    const world = new Rendezvous(4);
    await Promise.all(
      [0, 1, 2, 3].map(async (rank) => {
        const made = grid([2, 1, 2, 1]);
        const runtime = world.runtime(rank);
        const dp = (await made.createPg(['dp'], runtime)) as TestGroup;
        expect(await made.createPg(['dp', 'cp'], runtime)).toBe(dp);
        expect(await made.createPg(['tp', 'dp'], runtime)).not.toBe(dp);
        made.destroy();
        expect(dp.destroyed()).toBe(1);
        expect(() => made.getPg(['dp'])).toThrow(throwing('NOT_CREATED'));
      }),
    );
    expect(world.calls).toEqual(new Array(4).fill(['dp', 'dp-tp']));
  });

  it('makes no communicator on a rank outside the grid, and skips it in destroy', async () => {
    const world = new Rendezvous(4);
    const made = grid([2, 1, 1, 1], { worldSize: 4 });
    expect(await made.createPg(['tp'], world.runtime(3))).toBe(NON_MEMBER);
    expect(made.getPg(['tp'])).toBe(NON_MEMBER);
    expect(world.calls[3]).toEqual([]);
    made.destroy();
  });

  it('derives groups, such as the ends of each pipeline', async () => {
    const world = new Rendezvous(4);
    const ends = await Promise.all(
      [0, 1, 2, 3].map(async (rank) => {
        const made = grid([1, 1, 1, 4]);
        await made.createDerived('embd', ['pp'], (pipeline) => [pipeline[3]!, pipeline[0]!], world.runtime(rank));
        return made.getDerived('embd');
      }),
    );
    expect(ends.map((group) => (group === NON_MEMBER ? null : [group.rank, group.ranks]))).toEqual([
      [0, [0, 3]], null, null, [1, [0, 3]],
    ]); // prettier-ignore
  });

  it('prefixes names where grids lie over the same ranks', async () => {
    const world = new Rendezvous(1);
    for (const name of ['policy', 'value']) await grid([1, 1, 1, 1], { name }).createPg(['tp'], world.runtime(0));
    expect(world.calls[0]).toEqual(['policy/tp', 'value/tp']);
  });

  it('refuses another backend, another runtime and a rank outside the world', async () => {
    const world = new Rendezvous(2);
    const made = grid([1, 1, 1, 1], { worldSize: 2 });
    await expect(made.createPg(['tp'], world.runtime(0, 'nccl'))).rejects.toEqual(throwing('BACKEND', /'shm'.*'nccl'/));
    await expect(made.createPg(['tp'], { ...world.runtime(0), rank: 2 })).rejects.toEqual(throwing('RANK'));
    await made.createPg(['tp'], world.runtime(0, 'shm'));
    await expect(made.createPg(['dp'], world.runtime(0))).rejects.toEqual(throwing('RUNTIME'));
  });

  it('passes on the failure of a creation and keeps the key taken', async () => {
    const made = grid([2, 1, 1, 1]);
    const runtime = { rank: 0, createGroups: () => Promise.reject(new Error('peer died')) };
    await expect(made.createPg(['tp'], runtime)).rejects.toThrow('peer died');
    await expect(made.createPg(['tp'], runtime)).rejects.toEqual(throwing('CREATED'));
    expect(() => made.getPg(['tp'])).toThrow(throwing('NOT_CREATED'));
  });
});

describe('views', () => {
  const expert = { shape: [1, 4, 1, 2], dimNames: ['etp', 'ep', 'edp', 'pp'], sharedDims: ['pp'] };

  it('re-factor the same ranks, offset included', () => {
    const made = grid([2, 1, 2, 2], { rankOffset: 8, worldSize: 16 });
    made.registerView('expert', expert);
    expect(made.rankEnum(['ep'], { view: 'expert' })).toEqual(lists('8,9,10,11 12,13,14,15'));
    expect(made.rankEnum(['pp'], { view: 'expert' })).toEqual(made.rankEnum(['pp']));
    expect(made.coordinates(13, { view: 'expert' })).toEqual({ etp: 0, ep: 1, edp: 0, pp: 1 });
    expect(() => made.rankEnum(['ep'])).toThrow(throwing('UNKNOWN_DIM', /'ep'/));
  });

  it('use the grid’s own groups for shared dimensions, and private keys for others', async () => {
    const made = new HyperCommGrid({ shape: [1, 1, 1, 1], dimNames: DIMS, worldSize: 1, backend: 'shm' });
    made.registerView('expert', { ...expert, shape: [1, 1, 1, 1] });
    const runtime = new Rendezvous(1).runtime(0);
    const pp = await made.createPg(['pp'], runtime, { view: 'expert' });
    expect(made.getPg(['pp'])).toBe(pp);
    await expect(made.createPg(['pp'], runtime)).rejects.toEqual(throwing('CREATED', /'pp'/));
    await made.createPg(['ep', 'pp'], runtime, { view: 'expert' });
    await expect(made.createPg(['pp', 'ep'], runtime, { view: 'expert' })).rejects.toEqual(
      throwing('CREATED', /'expert:pp-ep'/),
    );
  });

  it.each([
    ['the name of the base', 'base', {}, 'VIEW_EXISTS'],
    ['lengths', 'v', { shape: [8] }, 'LENGTHS'],
    ['repeated names', 'v', { dimNames: ['ep', 'ep', 'edp', 'pp'] }, 'REPEATED_DIM'],
    ['a zero size', 'v', { shape: [0, 4, 1, 2] }, 'SIZE'],
    ['another number of ranks', 'v', { shape: [1, 4, 1, 1] }, 'VIEW_SIZE'],
    ['repeated shared dims', 'v', { sharedDims: ['pp', 'pp'] }, 'REPEATED_DIM'],
    ['a shared dim that the grid lacks', 'v', { sharedDims: ['ep'] }, 'UNKNOWN_DIM'],
    ['a shared dim that the view lacks', 'v', { sharedDims: ['tp'] }, 'UNKNOWN_DIM'],
    ['a shared dim that enumerates otherwise', 'v', { shape: [1, 2, 1, 4] }, 'VIEW_SHARED'],
  ])('refuse %s', (_, name, change, code) => {
    expect(() => grid([2, 1, 2, 2]).registerView(name, { ...expert, ...change })).toThrow(throwing(code));
  });

  it('refuse a name twice', () => {
    const made = grid([2, 1, 2, 2]);
    made.registerView('expert', expert);
    expect(() => made.registerView('expert', expert)).toThrow(throwing('VIEW_EXISTS'));
  });

  it('enumerate shared dims alike, also together, in another place or not at all', () => {
    const made = new HyperCommGrid({ shape: [2, 2, 2], dimNames: ['a', 'b', 'c'], worldSize: 8, backend: 'shm' });
    made.registerView('v', { shape: [2, 1, 2, 2], dimNames: ['a', 'y', 'x', 'c'], sharedDims: ['a', 'c'] });
    for (const dims of [['a'], ['c'], ['a', 'c']]) {
      expect(made.rankEnum(dims, { view: 'v' })).toEqual(made.rankEnum(dims));
    }
    expect(() =>
      made.registerView('w', { shape: [2, 2, 2], dimNames: ['x', 'a', 'c'], sharedDims: ['a', 'c'] }),
    ).toThrow(throwing('VIEW_SHARED', /'a'/));
  });
});

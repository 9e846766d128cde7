import { describe, expect, it } from 'vitest';
import { HyperCommGrid, type HyperCommGridOptions } from '../../../src/groups/grid/hyper-comm-grid.js';
import { ProcessGroupCollection } from '../../../src/groups/grid/process-group-collection.js';
import { NON_MEMBER } from '../../../src/groups/grid/process-group.js';
import { Rendezvous } from './rendezvous.js';

const DIMS = ['tp', 'cp', 'dp', 'pp'];

function grid(shape: number[], options: Partial<HyperCommGridOptions>): HyperCommGrid {
  return new HyperCommGrid({ shape, dimNames: DIMS, worldSize: 16, backend: 'shm', ...options });
}

describe('a grid over a list of ranks', () => {
  it.each([
    [
      [2, 1, 2, 2],
      [0, 2, 4, 6, 8, 10, 12, 14],
    ],
    [
      [2, 1, 2, 2],
      [7, 6, 5, 4, 3, 2, 1, 0],
    ],
    [
      [1, 2, 2, 2],
      [9, 1, 15, 3, 0, 14, 2, 8],
    ],
    [
      [2, 1, 1, 1],
      [3, 1],
    ],
  ])('of shape %j has the groups of a block, with %j in its places', (shape, ranks) => {
    const [listed, block] = [grid(shape, { ranks }), grid(shape, {})];
    const renamed = (groups: number[][]): number[][] => groups.map((group) => group.map((place) => ranks[place]!));
    for (const dims of [['tp'], ['pp'], ['cp', 'dp'], ['tp', 'pp'], DIMS]) {
      expect(listed.rankEnum(dims)).toEqual(renamed(block.rankEnum(dims)));
    }
    const { embd, expertDp } = ProcessGroupCollection.groupRanks(listed);
    const ofBlock = ProcessGroupCollection.groupRanks(block);
    expect([embd, expertDp]).toEqual([renamed(ofBlock.embd), renamed(ofBlock.expertDp)]);
    ranks.forEach((rank, place) => expect(listed.coordinates(rank)).toEqual(block.coordinates(place)));
    const inside = Array.from({ length: 16 }, (_, rank) => rank).filter((rank) => listed.isRankInGrid(rank));
    expect(inside).toEqual(ranks.toSorted((a, b) => a - b));
  });

  it('keeps a copy of the list, and names it', () => {
    const ranks = [3, 1];
    const made = grid([2, 1, 1, 1], { ranks });
    ranks[0] = 9;
    expect(made.ranks).toEqual([3, 1]);
    expect(() => made.coordinates(2)).toThrow('rank 2 is outside the grid of ranks 1, 3');
    expect(grid([2, 1, 1, 1], { rankOffset: 4 }).ranks).toEqual([4, 5]);
  });

  it.each<[string, Partial<HyperCommGridOptions>, string]>([
    ['a rank twice', { ranks: [3, 1, 3, 0] }, 'rank 3 is listed twice (ranks: [3, 1, 3, 0])'],
    ['one beyond the world', { ranks: [0, 1, 2, 16] }, 'rank 16 is not in a world of 16'],
    ['a negative one', { ranks: [0, -1, 2, 3] }, 'rank -1 is not in a world of 16'],
    ['a fraction', { ranks: [0, 0.5, 2, 3] }, 'rank 0.5 is not in a world of 16'],
    ['too few', { ranks: [0, 1, 2] }, 'a grid of shape [2, 1, 1, 2] has 4 ranks, 3 are listed'],
    ['too many', { ranks: [0, 1, 2, 3, 4] }, 'a grid of shape [2, 1, 1, 2] has 4 ranks, 5 are listed'],
    ['a list and an offset', { ranks: [0, 1, 2, 3], rankOffset: 0 }, 'ranks and a rank offset of 0'],
  ])('refuses %s', (_, change, message) => {
    const error = expect.objectContaining({
      code: 'MB_GRID_RANKS',
      exitCode: 3,
      message: expect.stringContaining(message),
      hint: expect.any(String),
    });
    expect(() => grid([2, 1, 1, 2], change)).toThrow(error);
  });

  it('makes the groups of two interleaved models, and tells each rank its place', async () => {
    const world = new Rendezvous(4);
    const lists = { even: [0, 2], odd: [3, 1] };
    const collections = await Promise.all(
      [0, 1, 2, 3].map(async (rank) => {
        const runtime = world.runtime(rank);
        const made = Object.entries(lists).map(([name, ranks]) => grid([1, 1, 1, 2], { ranks, worldSize: 4, name }));
        const found = [];
        for (const each of made) found.push(await ProcessGroupCollection.fromGrid(each, runtime));
        return found;
      }),
    );
    const seen = collections.map((found) =>
      found.map((pgs) => {
        const pp = pgs.get('pp');
        return pp === NON_MEMBER || pp === null ? null : [pp.name, pp.ranks, pp.rank];
      }),
    );
    expect(seen).toEqual([
      [['even/pp', [0, 2], 0], null],
      [null, ['odd/pp', [3, 1], 1]],
      [['even/pp', [0, 2], 1], null],
      [null, ['odd/pp', [3, 1], 0]],
    ]);
  });
});

import { describe, expect, it } from 'vitest';
import { GROUP_FIELDS, TRAINING_FIELDS, type GroupField } from '../../../src/groups/grid/group-fields.js';
import { HyperCommGrid } from '../../../src/groups/grid/hyper-comm-grid.js';
import { ProcessGroupCollection } from '../../../src/groups/grid/process-group-collection.js';
import { NON_MEMBER } from '../../../src/groups/grid/process-group.js';
import { Rendezvous, type TestGroup } from './rendezvous.js';

function grid(
  shape: number[],
  rankOffset = 0,
  worldSize = rankOffset + shape.reduce((a, b) => a * b, 1),
): HyperCommGrid {
  return new HyperCommGrid({ shape, dimNames: ['tp', 'cp', 'dp', 'pp'], rankOffset, worldSize, backend: 'shm' });
}

function lists(text: string): number[][] {
  return text === '' ? [] : text.split(' ').map((list) => list.split(',').map(Number));
}

function code(name: string): unknown {
  return expect.objectContaining({ code: `MB_PG_${name}`, exitCode: 3 });
}

describe('groupRanks', () => {
  // tp to mp, embd and posEmbd: Megatron-Core's lists for this shape; the others follow from their definition.
  it('lists every field of tp 2 x dp 2 x pp 2', () => {
    const expected: Record<GroupField, string> = {
      tp: '0,1 2,3 4,5 6,7',
      cp: '0 1 2 3 4 5 6 7',
      pp: '0,4 1,5 2,6 3,7',
      dp: '0,2 1,3 4,6 5,7',
      mp: '0,1,4,5 2,3,6,7',
      tpCp: '0,1 2,3 4,5 6,7',
      tpDpCp: '0,1,2,3 4,5,6,7',
      dpCp: '0,2 1,3 4,6 5,7',
      intraDpCp: '0,2 1,3 4,6 5,7',
      intraDistOpt: '0,1,2,3,4,5,6,7',
      interDistOpt: '',
      ep: '0 1 2 3 4 5 6 7',
      expertTp: '0,1 2,3 4,5 6,7',
      tpEp: '0,1 2,3 4,5 6,7',
      tpEpPp: '0,1,4,5 2,3,6,7',
      expertDp: '0,2 1,3 4,6 5,7',
      intraExpertDp: '0,2 1,3 4,6 5,7',
      embd: '0,4 1,5 2,6 3,7',
      posEmbd: '0 1 2 3',
    };
    const made = grid([2, 1, 2, 2]);
    const found = ProcessGroupCollection.groupRanks(made);
    expect(found).toEqual(Object.fromEntries(Object.entries(expected).map(([field, text]) => [field, lists(text)])));
    expect(Object.keys(found)).toEqual(GROUP_FIELDS);
    expect(made.hasView('expert')).toBe(false);
    const shifted = ProcessGroupCollection.groupRanks(grid([2, 1, 2, 2], 8));
    expect(shifted.mp).toEqual(lists('8,9,12,13 10,11,14,15'));
    expect(shifted.embd).toEqual(lists('8,12 9,13 10,14 11,15'));
  });

  it('folds cp into the data parallelism of experts', () => {
    const found = ProcessGroupCollection.groupRanks(grid([2, 2, 2, 1]), { ep: 2, etp: 1 });
    expect(found.ep).toEqual(lists('0,1 2,3 4,5 6,7'));
    expect(found.expertDp).toEqual(lists('0,2,4,6 1,3,5,7'));
    expect(found.expertTp).toEqual(lists('0 1 2 3 4 5 6 7'));
    expect(found.embd).toEqual(lists('0 1 2 3 4 5 6 7'));
  });

  it('has the first and last of four stages in embd', () => {
    const { embd, posEmbd } = ProcessGroupCollection.groupRanks(grid([1, 1, 2, 4]));
    expect([embd, posEmbd]).toEqual([lists('0,6 1,7'), lists('0 1')]);
  });

  it('refuses expert sizes that do not divide, and grids of other dimensions', () => {
    expect(() => ProcessGroupCollection.groupRanks(grid([2, 1, 2, 2]), { ep: 3 })).toThrow(
      expect.objectContaining({ code: 'MB_GRID_EXPERTS' }),
    );
    const other = new HyperCommGrid({ shape: [2], dimNames: ['tp'], worldSize: 2, backend: 'shm' });
    expect(() => ProcessGroupCollection.groupRanks(other)).toThrow(
      expect.objectContaining({ code: 'MB_GRID_UNKNOWN_DIM' }),
    );
  });
});

describe('fromGrid', () => {
  it.each([
    { shape: [2, 1, 2, 2], offset: 0, sizes: undefined },
    { shape: [2, 1, 2, 2], offset: 3, sizes: { ep: 2 } },
    { shape: [1, 1, 1, 4], offset: 0, sizes: undefined },
    { shape: [2, 2, 1, 2], offset: 0, sizes: { ep: 4, etp: 1 } },
    { shape: [1, 1, 1, 1], offset: 0, sizes: undefined },
  ])('gives every rank its groups of $shape + $offset', async ({ shape, offset, sizes }) => {
    const size = shape.reduce((a, b) => a * b);
    const world = new Rendezvous(offset + size);
    const planned = ProcessGroupCollection.groupRanks(grid(shape, offset), sizes);
    const made = await Promise.all(
      Array.from({ length: size }, async (_, i) => {
        const runtime = world.runtime(offset + i);
        const pgs = await ProcessGroupCollection.fromGrid(grid(shape, offset), runtime, { ...sizes, wanted: 'all' });
        return { rank: offset + i, pgs };
      }),
    );
    for (const { rank, pgs } of made) {
      for (const field of GROUP_FIELDS) {
        const value = pgs.get(field);
        const expected = planned[field].find((ranks) => ranks.includes(rank));
        if (field === 'interDistOpt') expect(value).toBeNull();
        else if (expected === undefined) expect(value, field).toBe(NON_MEMBER);
        else
          expect(value, field).toMatchObject({ ranks: expected, rank: expected.indexOf(rank), size: expected.length });
      }
      expect(new Set(world.calls[rank]).size).toBe(world.calls[rank]!.length);
      expect(world.calls[rank]).toEqual(world.calls[offset]);
    }
  });

  it('makes one communicator for the same ranks', async () => {
    const world = new Rendezvous(8);
    const all = await Promise.all(
      Array.from({ length: 8 }, (_, rank) =>
        ProcessGroupCollection.fromGrid(grid([2, 1, 2, 2]), world.runtime(rank), { wanted: 'all' }),
      ),
    );
    // posEmbd has the single ranks of cp; embd has the pipelines; experts at ep 1 have the dense groups.
    expect(world.calls[5]).toEqual(['tp', 'cp', 'pp', 'dp', 'pp-tp', 'dp-cp-tp', 'pp-dp-cp-tp']);
    const pgs = all[0]!;
    expect([pgs.dpCp, pgs.intraDpCp, pgs.expertDp, pgs.intraExpertDp]).toEqual(new Array(4).fill(pgs.dp));
    expect(pgs.tpCp).toBe(pgs.tp);
    expect(pgs.posEmbd).toBe(pgs.cp);
    expect(all[4]!.posEmbd).toBe(NON_MEMBER);
    expect(pgs.embd).toBe(pgs.pp);
  });

  it.each([
    { wanted: undefined, calls: ['tp', 'cp', 'pp', 'dp', 'pp-dp-cp-tp'], others: ['mp', 'tpDpCp', 'expertDp'] },
    { wanted: ['mp', 'tp'], calls: ['tp', 'pp-tp'], others: ['pp', 'dp', 'embd'] },
    // intraDpCp is dpCp, and intraExpertDp is expertDp: each is made by the name of its source.
    { wanted: ['intraDpCp'], calls: ['dp-cp'], others: ['tp', 'dp'] },
    { wanted: [], calls: [], others: ['tp'] },
  ] as const)('makes what is wanted, $wanted, and says how to want the rest', async ({ wanted, calls, others }) => {
    const world = new Rendezvous(8);
    const [pgs] = await Promise.all(
      Array.from({ length: 8 }, (_, rank) =>
        ProcessGroupCollection.fromGrid(
          grid([2, 1, 2, 2]),
          world.runtime(rank),
          wanted === undefined ? {} : { wanted },
        ),
      ),
    );
    expect(world.calls).toEqual(Array(8).fill(calls));
    for (const field of wanted ?? TRAINING_FIELDS) expect(pgs!.get(field)).toMatchObject({ rank: 0 });
    for (const field of others) {
      expect(() => pgs![field]).toThrow(code('UNSET'));
      expect(() => pgs![field]).toThrow(
        expect.objectContaining({ hint: expect.stringContaining('`wanted`') as string }),
      );
    }
  });

  it('refuses to want what there is not', async () => {
    const wanted = ['hcp'] as unknown as GroupField[];
    const made = ProcessGroupCollection.fromGrid(grid([1, 1, 1, 1]), new Rendezvous(1).runtime(0), { wanted });
    await expect(made).rejects.toEqual(code('UNKNOWN'));
  });

  it('takes the sizes from a registered expert view', async () => {
    const made = grid([1, 1, 1, 1]);
    made.registerView('expert', { shape: [1, 1, 1, 1], dimNames: ['etp', 'ep', 'edp', 'pp'], sharedDims: ['pp'] });
    const runtime = new Rendezvous(1).runtime(0);
    await expect(ProcessGroupCollection.fromGrid(made, runtime, { ep: 1 })).rejects.toEqual(
      expect.objectContaining({ code: 'MB_GRID_VIEW_EXISTS' }),
    );
    expect((await ProcessGroupCollection.fromGrid(made, runtime)).tp.size).toBe(1);
  });

  it('serves several grids side by side, and is NON_MEMBER outside', async () => {
    const world = new Rendezvous(4);
    const parts = [grid([2, 1, 1, 1], 0, 4), grid([1, 1, 1, 2], 2, 4)];
    await Promise.all(
      [0, 1, 2, 3].map(async (rank) => {
        const runtime = world.runtime(rank);
        const [policy, reference] = await Promise.all(
          parts.map((part) => ProcessGroupCollection.fromGrid(new HyperCommGrid(part), runtime, { wanted: 'all' })),
        );
        expect(rank < 2 ? policy!.tp.ranks : reference!.pp.ranks).toEqual(rank < 2 ? [0, 1] : [2, 3]);
        const outside = rank < 2 ? reference! : policy!;
        for (const field of GROUP_FIELDS.filter((f) => f !== 'interDistOpt'))
          expect(outside.get(field)).toBe(NON_MEMBER);
        expect(() => outside.tp).toThrow(code('NOT_A_MEMBER'));
      }),
    );
  });
});

describe('fields', () => {
  it('are built one by one from grid groups', async () => {
    const made = grid([1, 1, 1, 1]);
    const runtime = new Rendezvous(1).runtime(0);
    const tp = await made.createPg(['tp'], runtime);
    const pgs = new ProcessGroupCollection<TestGroup>({
      tp,
      dp: await made.createPg(['dp'], runtime),
      ep: null,
      embd: NON_MEMBER,
    });
    expect(pgs.tp).toBe(tp);
    expect(pgs.tp.destroyed()).toBe(0);
    expect([pgs.ep, pgs.embd]).toEqual([null, NON_MEMBER]);
    expect([pgs.has('ep'), pgs.has('pp')]).toEqual([true, false]);
    expect(JSON.stringify(pgs)).toBe('{"tp":[0],"dp":[0],"ep":null,"embd":"non-member"}');
  });

  it('throw when read and never set, each by its name', () => {
    const pgs = new ProcessGroupCollection({});
    for (const field of GROUP_FIELDS) {
      expect(() => pgs[field]).toThrow(code('UNSET'));
      expect(() => pgs[field]).toThrow(`'${field}'`);
      expect(() => pgs.get(field)).toThrow(code('UNSET'));
    }
  });

  it('read as the very value that was set', () => {
    const runtimeGroup = (name: string) => ({ name, ranks: [0], rank: 0, size: 1, destroy: () => undefined });
    for (const field of GROUP_FIELDS) {
      const group = runtimeGroup(field);
      const pgs = new ProcessGroupCollection({ [field]: group });
      expect(pgs[field]).toBe(group);
      expect(new ProcessGroupCollection({ [field]: null }).get(field)).toBeNull();
    }
  });

  it('refuse unknown names and undefined', () => {
    expect(() => new ProcessGroupCollection({ toString: null } as object)).toThrow(code('UNKNOWN'));
    expect(() => new ProcessGroupCollection({ tp_cp: null } as object)).toThrow(code('UNKNOWN'));
    expect(() => new ProcessGroupCollection({ tp: undefined } as object)).toThrow(code('UNDEFINED'));
    expect(() => new ProcessGroupCollection({}).get('hcp' as GroupField)).toThrow(code('UNKNOWN'));
    expect(() => new ProcessGroupCollection({ tp: NON_MEMBER }).tp).toThrow(code('NOT_A_MEMBER'));
  });
});

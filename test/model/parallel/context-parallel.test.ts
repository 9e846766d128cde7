import { expect, test } from 'vitest';
import { ContextParallel } from '../../../src/model/parallel/context-parallel.js';
import { BatchCut } from '../../../src/model/stage/batch-cut.js';
import { tokenSorter } from '../../../src/data/token-order.js';

const [BATCH, SEQ] = [3, 24];

test.each([2, 3, 4, 6])('%i ranks hold every token once, and as many pairs of query and key each', (size) => {
  const ranks = Array.from({ length: size }, (_, rank) =>
    new ContextParallel({ size, rank }, null).tokensOf(BATCH, SEQ),
  );
  const all = ranks.flatMap((tokens) => [...tokens]);
  expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: BATCH * SEQ }, (_, i) => i));
  const pairs = ranks.map((tokens) => tokens.reduce((sum, token) => sum + (token % SEQ) + 1, 0));
  expect(new Set(pairs).size).toBe(1);
});

test.each([2, 3, 4])(
  'in the turns of a ring of %i, each chunk of queries meets every earlier chunk of keys once',
  (size) => {
    const ring = Array.from({ length: size }, (_, rank) => new ContextParallel({ size, rank }, null, 'p2p'));
    for (const cp of ring) {
      const met = cp.turns().flatMap(({ number, from, to, receives, sends, blocks }) => {
        // What one sends, the other expects.
        expect(ring[from]!.turn(number)).toMatchObject({ to: cp.rank, sends: receives });
        expect(ring[to]!.turn(number)).toMatchObject({ from: cp.rank, receives: sends });
        expect(Math.max(...blocks.map(([, keys]) => keys))).toBe(receives - 1);
        return blocks.map(([queries, keys]) => [cp.chunksOf(cp.rank)[queries]!, ring[from]!.chunksOf(from)[keys]!]);
      });
      const held = cp.chunksOf(cp.rank);
      const earlier = held.flatMap((queries) => Array.from({ length: queries }, (_, keys) => [queries, keys]));
      const others = earlier.filter(([, keys]) => !held.includes(keys!));
      expect(met.sort()).toEqual(others.sort());
    }
  },
);

test('a rank takes its tokens of every field, and their order', () => {
  const held = new ContextParallel({ size: 2, rank: 1 }, null).tokensOf(2, 8);
  expect([...held]).toEqual([2, 3, 10, 11, 4, 5, 12, 13]);
  const cut = new BatchCut(held, 16);
  const tokens = Int32Array.from([7, 1, 5, 3, 3, 0, 2, 2, 5, 5, 3, 9, 9, 0, 1, 1]);
  const [here, order, all] = [new Int32Array(8), new Int32Array(8), new Int32Array(16)];
  cut.take('tokens', tokens, here);
  expect([...here]).toEqual([5, 3, 3, 9, 3, 0, 9, 0]);
  tokenSorter(16, 10)(tokens, all);
  cut.take('order', all, order);
  expect(Array.from(order, (i) => here[i])).toEqual([0, 0, 3, 3, 3, 5, 9, 9]);
  expect([...order].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

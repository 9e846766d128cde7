import { expect, test } from 'vitest';
import { runRanks } from '../../src/testing/run-ranks.js';

interface Ranked {
  /** By model; on the last stage. */
  losses: (number | null)[];
  held: Record<string, number>;
  after: Record<string, number>;
}

test('four models of 64 layers live on one device, and give back what they took', async () => {
  const ranks = await runRanks<Ranked>(4, new URL('../workers/many-models.mjs', import.meta.url));
  const [first, , last, other] = ranks.map(({ losses }) => losses);
  expect(first).toEqual([null, null, null, null]);
  expect(other).toEqual(last);
  // Trained and frozen, they begin with the same weights.
  expect(last![0]).toBeGreaterThan(0);
  expect(last![2]).toBe(last![0]);
  expect(last![3]).toBe(last![1]);
  for (const { held, after } of ranks) {
    // Of each model its state and the rest.
    expect(held['arenas']).toBe(8);
    expect(after).toMatchObject({ arenas: 0, events: 0 });
  }
});

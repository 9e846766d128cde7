import { expect, test } from 'vitest';
import type { Smoothed } from '../../examples/testing/label-smoothing-rank.js';
import { runRanks } from '../../src/testing/run-ranks.js';
import { within } from '../helpers/parameter-slice.js';

const RANK = new URL('../../dist/examples/testing/label-smoothing-rank.js', import.meta.url);

function smoothed(ranks: number, epsilon: number | null): Promise<Smoothed[]> {
  return runRanks<Smoothed>(ranks, RANK, { options: { epsilon } });
}

function expectSame(found: Smoothed, one: Smoothed): void {
  expect(found.loss).toBeCloseTo(one.loss, 5);
  for (const slice of found.gradients) {
    const expected = within(
      one.gradients.find(({ name }) => name === slice.name)!,
      slice,
    );
    const farthest = expected.reduce((most, x, i) => Math.max(most, Math.abs(x - slice.values[i]!)), 0);
    expect(farthest, slice.name).toBeLessThan(1e-5);
  }
}

test('two ranks that share a vocabulary have the loss and the gradients of one', async () => {
  const [one] = await smoothed(1, 0.1);
  for (const rank of await smoothed(2, 0.1)) expectSame(rank, one!);
});

test('labels that are not smoothed cost their cross entropy', async () => {
  const [[none], [plain]] = [await smoothed(1, 0), await smoothed(1, null)];
  expectSame(none!, plain!);
});

import { expect, test } from 'vitest';
import { runRanks } from '../../../src/testing/run-ranks.js';

interface Step {
  tp: number;
  step: number;
  loss: number;
}

test('the groups of one model after another over the same ranks are made anew', async () => {
  const [steps] = (await runRanks<Step[]>(2, new URL('../../workers/rebuild.mjs', import.meta.url))) as [
    Step[],
    Step[],
  ];
  expect(steps.map(({ tp, step }) => [tp, step])).toEqual(
    [2, 2, 1, 1].flatMap((tp) => [1, 2].map((step) => [tp, step])),
  );
  // Each begins with the same weights and data.
  for (const { step, loss } of steps) expect(loss).toBeCloseTo(steps[step - 1]!.loss, 4);
});

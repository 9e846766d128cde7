import { expect, test } from 'vitest';
import { runRanks } from '../../../src/testing/run-ranks.js';

/** Sums of the losses of both halves, before the first update and after each. */
type Losses = [number, number][];

const CASES = [0, 1].flatMap((clip) => [
  { clip, field: 'mask', weights: [1, 1] },
  { clip, field: 'mask', weights: [-1, -1] },
  { clip, field: 'weight', weights: [-1, -1] },
  { clip, field: 'weight', weights: [1, -1] }, // in all 0
]);

test('tokens of negative weight are trained away from, with and without clipping', async () => {
  const module = new URL('../../workers/sign.mjs', import.meta.url);
  const [runs] = await runRanks<Losses[]>(1, module, { options: CASES });
  expect(runs).toHaveLength(CASES.length);
  runs!.forEach((losses, i) => {
    for (let step = 1; step < losses.length; step++) {
      CASES[i]!.weights.forEach((weight, half) => {
        const gained = (losses[step - 1]![half]! - losses[step]![half]!) * weight;
        expect(gained, `${JSON.stringify(CASES[i])}, half ${half}`).toBeGreaterThan(0);
      });
    }
  });
});

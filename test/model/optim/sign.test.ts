import { expect, test } from 'vitest';
import { runRanks } from '../../../src/testing/run-ranks.js';

interface Trained {
  clip: number;
  weight: number;
  losses: number[];
}

test('tokens of negative weight are trained away from, with and without clipping', async () => {
  const [runs] = (await runRanks<Trained[]>(1, new URL('../../workers/sign.mjs', import.meta.url))) as [Trained[]];
  expect(runs.map(({ clip, weight }) => [clip, weight])).toEqual([
    [0, 1],
    [0, -1],
    [1, 1],
    [1, -1],
  ]);
  for (const { weight, losses } of runs) {
    for (let step = 1; step < losses.length; step++) {
      expect((losses[step]! - losses[step - 1]!) * weight).toBeLessThan(0);
    }
  }
});

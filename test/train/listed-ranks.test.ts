import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { ParameterSlice } from '../../src/model/stage/distributed-model.js';
import { runRanks } from '../../src/testing/run-ranks.js';
import { within } from '../helpers/parameter-slice.js';

const MODULE = join(import.meta.dirname, '../workers/grids.mjs');

interface Ranked {
  /** By model; of this rank's alone. */
  losses: Record<string, number[]>;
  weights: { source: ParameterSlice[]; target: ParameterSlice[] };
}

test('models on ranks of any order train, are saved, loaded and transferred as on one rank', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-grids-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const alone = async (seed: number): Promise<number[]> => {
    const [losses] = await runRanks<number[]>(1, MODULE, { export: 'alone', options: { ranks: [0], seed } });
    return losses!;
  };
  const expected = { policy: await alone(1), value: await alone(2) };
  expect(expected.policy[0]).not.toBeCloseTo(expected.value[0]!, 2);

  const [policy, value] = [join(folder, 'policy'), join(folder, 'value')];
  const options = {
    first: {
      policy: { ranks: [2, 0], tp: 2, seed: 1, checkpoint: { save: policy } },
      value: { ranks: [3, 1], pp: 2, seed: 2, checkpoint: { save: value } },
    },
    then: {
      policyAgain: { ranks: [1, 3], seed: 1, checkpoint: { load: policy } },
      valueAgain: { ranks: [2, 0], pp: 2, seed: 2, checkpoint: { load: value } },
    },
    sampler: { ranks: [3, 0], tp: 2 },
  };
  const ranks = await runRanks<Ranked>(4, MODULE, { export: 'interleaved', options });
  const close = (losses: number[]): unknown => losses.map((loss) => expect.closeTo(loss, 4) as unknown);
  const before = { policy: close(expected.policy.slice(0, 2)), value: close(expected.value.slice(0, 2)) };
  const after = { policyAgain: close(expected.policy.slice(2)), valueAgain: close(expected.value.slice(2)) };
  expect(ranks.map(({ losses }) => losses)).toEqual([
    { policy: before.policy, valueAgain: after.valueAgain },
    { value: before.value, policyAgain: after.policyAgain },
    { policy: before.policy, valueAgain: after.valueAgain },
    { value: before.value, policyAgain: after.policyAgain },
  ]);

  // Ranks 1 and 3 are replicas of the source; 3 is also the first tp rank of the target.
  const source = ranks[1]!.weights.source;
  expect(ranks.map(({ weights }) => weights.source.length > 0)).toEqual([false, true, false, true]);
  expect(ranks.map(({ weights }) => weights.target.length > 0)).toEqual([true, false, false, true]);
  expect(ranks[3]!.weights.target.find(({ name }) => name.includes('embed'))!.rows.start).toBe(0);
  for (const slice of ranks.flatMap(({ weights }) => weights.target)) {
    const whole = source.find(({ name }) => name === slice.name)!;
    expect(within(whole, slice), slice.name).toEqual([...slice.values]);
  }
});

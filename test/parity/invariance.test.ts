import { expect, test } from 'vitest';
import { loadFixture } from '../helpers/fixture.js';
import { farthest, fixtureConfig, label, trainSteps, type Layout } from './run-fixture.js';

const fixture = loadFixture('qwen3-tied');

/** From `rng.seed`, without a checkpoint. */
function freshConfig(): Record<string, unknown> {
  const config = fixtureConfig(fixture);
  delete config['checkpoint'];
  return { ...config, optimizer: { ...(config['optimizer'] as object), lr: 1e-3, min_lr: 1e-4 }, rng: { seed: 77 } };
}

const LAYOUTS: Layout[] = [
  { tp: 2, pp: 1, dp: 1 },
  { tp: 1, pp: 4, dp: 1 },
  { tp: 1, pp: 1, dp: 4 },
  { tp: 2, pp: 2, dp: 2 },
  { tp: 1, pp: 2, dp: 1, set: ['model.virtual_pipeline_model_parallel_size=2'] },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 1, cp: 4, pp: 1, dp: 1, set: ['model.cp_comm_type=p2p'] },
  { tp: 2, cp: 2, pp: 1, dp: 1 },
];

test('new weights are the same on every layout, and so is the training', async () => {
  const reference = await trainSteps(freshConfig(), { tp: 1, pp: 1, dp: 1 });
  expect(reference[0]!.loss).toBeGreaterThan(reference.at(-1)!.loss);
  for (const layout of LAYOUTS) {
    const steps = await trainSteps(freshConfig(), layout);
    expect(farthest(steps, reference, 'loss'), label(layout)).toBeLessThan(1e-5);
  }
}, 120_000);

test.each<Layout>([{ tp: 1, pp: 1, dp: 1 }, LAYOUTS[3]!, LAYOUTS.at(-1)!])(
  'two runs print the same bits on %o',
  async (layout) => {
    const numbers = async (): Promise<unknown> =>
      (await trainSteps(freshConfig(), layout)).map(({ loss, grad_norm }) => ({ loss, grad_norm }));
    expect(await numbers()).toEqual(await numbers());
  },
);

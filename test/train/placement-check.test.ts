import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { loadFixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { farthest, fixtureConfig, trainSteps } from '../parity/run-fixture.js';

interface Damage {
  /** Layout as [tp, pp, dp]. */
  layout: [number, number, number];
  bucket: string;
  rank: number;
  found: RegExp;
}

test.each<Damage>([
  { layout: [2, 1, 1], bucket: 'norms', rank: 1, found: /bucket norms differ between ranks 0, 1 after update 1/ },
  { layout: [1, 1, 2], bucket: 'layer.2', rank: 0, found: /bucket layer\.2 differ between ranks 0, 1 after update 1/ },
  {
    layout: [1, 2, 1],
    bucket: 'embedding',
    rank: 1,
    found: /bucket embedding differ between ranks 0, 1 after update 1/,
  },
])('a replica that differs is named: $bucket', async ({ layout: [tp, pp, dp], bucket, rank, found }) => {
  const config = qwen3TinyPretrainConfig({
    tensor_model_parallel_size: tp,
    pipeline_model_parallel_size: pp,
    sequence_parallel: tp > 1,
  });
  // The worker reads what to damage from a key that it has no other use for.
  config.logger.log_dir = JSON.stringify({ bucket, rank });
  const { exitCode, events, log } = await runWorkers('placement', config, tp * pp * dp);
  expect(events, log).toHaveLength(tp * pp * dp);
  expect(log).toMatch(found);
  expect(exitCode).toBe(1);
});

test.each([{ dp: 2 }, { cp: 2, dp: 1 }])(
  'training with the check on passes it, and computes the same, on %o',
  async (size) => {
    const fixture = loadFixture('qwen3-tied');
    const set = ['dist.check_placement=true'];
    const steps = await trainSteps(fixtureConfig(fixture), { tp: 2, ...size, pp: 2, set });
    expect(farthest(steps, fixture.trajectory.steps, 'loss')).toBeLessThan(2e-5);
  },
);

import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../../recipes/qwen3.js';
import { runWorkers } from '../../helpers/run-workers.js';

interface Trained {
  type: 'trained';
  clip: number;
  weight: number;
  losses: number[];
}

test('tokens of negative weight are trained away from, with and without clipping', async () => {
  const config = qwen3TinyPretrainConfig({ seq_length: 64, global_batch_size: 4 });
  config.scheduler.lr_warmup_iters = 0;
  const { exitCode, events, log } = await runWorkers('sign', config, 1);
  expect(exitCode, log).toBe(0);
  const runs = events as Trained[];
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

import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../../recipes/qwen3.js';
import { runWorkers } from '../../helpers/run-workers.js';

test('the groups of one model after another over the same ranks are made anew', async () => {
  const config = qwen3TinyPretrainConfig({ seq_length: 64, train_iters: 2, global_batch_size: 4 });
  const { exitCode, events, log } = await runWorkers('rebuild', config, 2);
  expect(exitCode, log).toBe(0);
  const steps = events as unknown as { tp: number; step: number; loss: number }[];
  expect(steps.map(({ tp, step }) => [tp, step])).toEqual(
    [2, 2, 1, 1].flatMap((tp) => [1, 2].map((step) => [tp, step])),
  );
  // Each begins with the same weights and data.
  for (const { step, loss } of steps) expect(loss).toBeCloseTo(steps[step - 1]!.loss, 4);
});

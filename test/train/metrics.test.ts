import { expect, test } from 'vitest';
import { resolve } from '../../src/config/resolve.js';
import { findRecipe } from '../../recipes/index.js';
import { devicesOf, stepEvent, type StepResult } from '../../src/train/metrics.js';

const RESULT: StepResult = {
  step: 3,
  loss: 2,
  gradNorm: 1,
  lr: 1e-3,
  tokens: 2048,
  skipped: false,
  skippedInRow: 0,
  updates: 3,
  stopVotes: 0,
  attentionPairs: null,
  totals: {},
};

test.each<['cpu' | 'cuda', number, number, number]>([
  ['cuda', 4, 1, 4],
  ['cuda', 4, 2, 2],
  ['cuda', 3, 2, 2],
  ['cuda', 1, 4, 1],
  ['cpu', 4, 2, 4],
])('rates of %s, %i ranks, %i a GPU, are by %i devices', (device, ranks, ranksPerGpu, devices) => {
  const texts = ['model.seq_length=256', 'train.global_batch_size=8', `dist.ranks_per_gpu=${ranksPerGpu}`];
  const overrides = texts.map((text) => ({ text, place: 'here' }));
  const { config } = resolve({ recipe: findRecipe('qwen3-tiny'), flags: [], overrides });
  const run = { ...FACTS, devices: devicesOf(config, ranks, device), peakTflops: 1 };
  const { tokens_per_s_per_device: rate, tflops_per_device: tflops, mfu } = stepEvent(config, RESULT, run);
  expect(rate).toBe((2 * 8 * 256) / devices);
  expect(mfu).toBe(tflops);
});

const FACTS = {
  ...{ milliseconds: 500, dataMs: 2, devices: 1, peakTflops: 0, epoch: 0 },
  ...{ time: '2026-11-28T00:00:00.000Z', elapsedS: 1.5, etaS: 2, memoryBytes: 7 },
};

test.each([
  [{}, {}, {}],
  [{ skipped: true }, {}, { skipped: true }],
  [{}, { epoch: 3 }, { epoch: 3 }],
  [{ totals: { aux: 0.5 } }, { peakTflops: 0 }, { totals: { aux: 0.5 } }],
])('a step of %o, run %o, says %o beyond what every step says', (result, run, more) => {
  const { config } = resolve({ recipe: findRecipe('qwen3-tiny'), flags: [], overrides: [] });
  const facts = { ...FACTS, ...run };
  const event = stepEvent(config, { ...RESULT, ...result }, facts);
  const rates = {
    tokens_per_s_per_device: expect.any(Number) as number,
    tflops_per_device: expect.any(Number) as number,
  };
  const common = {
    type: 'step',
    step: 3,
    loss: 2,
    grad_norm: 1,
    lr: 1e-3,
    tokens: 2048,
    step_time_ms: 500,
    data_ms: 2,
    tokens_seen: 3 * 8 * 256,
    memory_bytes: 7,
    time: '2026-11-28T00:00:00.000Z',
    elapsed_s: 1.5,
    eta_s: 2,
  };
  expect(event).toEqual({ ...common, ...rates, ...more });
});

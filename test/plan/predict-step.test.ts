import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { validateLayout } from '../../src/config/layout.js';
import { resolve } from '../../src/config/resolve.js';
import { buildSchedule } from '../../src/model/pipeline/schedule.js';
import { simulate } from '../../src/model/pipeline/simulate.js';
import { findProfile, profileNames, profileOf, type DeviceProfile } from '../../src/plan/device-profiles.js';
import { predictStep, type StepPrediction } from '../../src/plan/predict-step.js';

interface Setting {
  readonly recipe: string;
  readonly ranks: number;
  readonly set: string;
}

const KEYS: Readonly<Record<string, string>> = {
  tp: 'model.tensor_model_parallel_size',
  pp: 'model.pipeline_model_parallel_size',
  vpp: 'model.virtual_pipeline_model_parallel_size',
  cp: 'model.context_parallel_size',
  batch: 'train.global_batch_size',
  micro: 'train.micro_batch_size',
  seq: 'model.seq_length',
  layers: 'model.num_hidden_layers',
  sharding: 'ddp.data_parallel_sharding_strategy',
  recompute: 'model.recompute_granularity',
  modules: 'model.recompute_modules',
  deterministic: 'model.deterministic',
  shared: 'dist.ranks_per_gpu',
  precision: 'mixed_precision',
  ends: 'model.fp8_first_last_layers_bf16',
};

/** @param set `tp 2, batch 8` */
function predict({ recipe, ranks, set }: Setting, profile: DeviceProfile): StepPrediction {
  const pairs = set.split(', ').map((pair) => pair.split(' ') as [string, string]);
  const seq = pairs.find(([name]) => name === 'seq')?.[1] ?? '4096';
  const longer = Number(seq) > 40_960 ? [['model.max_position_embeddings', seq] as const] : [];
  const { config } = resolve({
    recipe: findRecipe(recipe),
    overrides: [...pairs.map(([name, value]) => [KEYS[name] as string, value] as const), ...longer].map(
      ([key, value]) => ({ text: `${key}=${value}`, place: 'test' }),
    ),
  });
  return predictStep(config, validateLayout(config, ranks, { device: 'cuda' }), profile);
}

/** Measured: docs/performance.md has these rows, where the commands and commits are too. */
const MEASURED: readonly (readonly [gpu: string, recipe: string, ranks: number, set: string, ms: number])[] = [
  ['h200-141gb', 'qwen3-0.6b', 1, 'batch 4, micro 4', 171],
  ['h200-141gb', 'qwen3-4b', 4, 'batch 16', 862],
  ['h200-141gb', 'qwen3-4b', 4, 'batch 4', 247],
  ['h200-141gb', 'qwen3-4b', 4, 'tp 2, batch 4', 268],
  ['h200-141gb', 'qwen3-4b', 4, 'tp 2, pp 2, batch 32', 2170],
  ['h200-141gb', 'qwen3-8b', 4, 'batch 16', 1440],
  ['h200-141gb', 'qwen3-4b', 2, 'batch 2', 241],
  ['h200-141gb', 'qwen3-4b', 2, 'batch 8', 870],
  ['h200-141gb', 'qwen3-4b', 2, 'batch 32', 3385],
  ['h200-141gb', 'qwen3-4b', 2, 'tp 2, batch 2', 254],
  ['h200-141gb', 'qwen3-4b', 2, 'tp 2, batch 8', 974],
  ['h200-141gb', 'qwen3-4b', 2, 'tp 2, batch 16, seq 1024', 545],
  ['h200-141gb', 'qwen3-4b', 2, 'tp 2, batch 32, seq 1024', 1068],
  ['h200-141gb', 'qwen3-4b', 2, 'pp 2, batch 16', 1809],
  ['h200-141gb', 'qwen3-8b', 2, 'batch 8, sharding optim_grads', 1529],
  ['h200-141gb', 'qwen3-4b', 4, 'tp 2, pp 2, batch 32, shared 2', 4089],
  // Since the model's constants were chosen.
  ['h200-141gb', 'qwen3-1.7b', 1, 'batch 256, micro 16, seq 1024', 4799],
  ['h200-141gb', 'qwen3-1.7b', 1, 'batch 256, micro 32, seq 1024', 4745],
  ['h200-141gb', 'qwen3-4b', 2, 'tp 2, batch 16, micro 4, seq 1024', 426],
  ['h200-141gb', 'qwen3-4b', 2, 'batch 16, micro 2', 1671],
  ['h200-141gb', 'qwen3-0.6b', 1, 'batch 8, micro 4, precision fp8_mixed, ends 0', 319],
  ['h200-141gb', 'qwen3-4b', 2, 'batch 8, precision fp8_mixed, ends 0', 695],
  ['h200-141gb', 'qwen3-4b', 2, 'batch 16, micro 2, precision fp8_mixed, ends 0', 1321],
  ['h200-141gb', 'qwen3-4b', 2, 'tp 2, batch 8, precision fp8_mixed, ends 0', 795],
  ['h200-141gb', 'qwen3-8b', 2, 'batch 8, sharding optim_grads, precision fp8_mixed, ends 0', 1162],
  ['h200-141gb', 'qwen3-8b', 2, 'batch 16, sharding optim_grads, precision fp8_mixed, ends 0', 2284],
  ['h100-80gb', 'qwen3-4b', 2, 'batch 8', 893],
  ['h100-80gb', 'qwen3-4b', 2, 'tp 2, batch 4', 511],
  ['h100-80gb', 'qwen3-0.6b', 1, 'batch 4', 199],
  ['h100-80gb', 'qwen3-1.7b', 1, 'batch 256, micro 8, seq 1024', 5024],
  ['h100-80gb', 'qwen3-1.7b', 1, 'batch 16, micro 2', 1448],
  ['h100-80gb', 'qwen3-4b', 2, 'cp 2, batch 1, seq 32768, layers 20, sharding optim_grads', 1140],
  ['h100-80gb', 'qwen3-4b', 2, 'cp 2, batch 1, seq 65536, layers 10, sharding optim_grads, deterministic false', 1646],
  ['h100-80gb', 'qwen3-4b', 2, 'cp 2, batch 1, seq 131072, layers 4, sharding optim_grads', 2593],
  ['h100-80gb', 'qwen3-4b', 2, 'cp 2, batch 1, seq 131072, layers 4, sharding optim_grads, deterministic false', 2324],
  ['h100-80gb', 'qwen3-8b', 2, 'cp 2, batch 1, seq 65536, layers 6, sharding optim_grads, deterministic false', 1304],
  ['h100-80gb', 'qwen3-4b', 2, 'cp 2, batch 1, seq 32768, sharding optim_grads, recompute full', 2469],
];

/** In per cent, of each row, and of their mean. */
const BOUND = { each: 12, mean: 5 };

const ERRORS = MEASURED.map(([gpu, recipe, ranks, set, ms]) => {
  const { stepMs } = predict({ recipe, ranks, set }, findProfile(gpu));
  const error = 100 * (stepMs / ms - 1);
  const row = `| ${gpu} | ${recipe}, ${set} | ${ranks} | ${ms} | ${Math.round(stepMs)} | ${error.toFixed(1)} % |`;
  return { row, error };
});

const DOCUMENTED = readFileSync(join(import.meta.dirname, '../../docs/performance.md'), 'utf8').split('\n');

test.each(ERRORS.map(({ row, error }) => [row, error] as const))('%s', (row, error) => {
  expect(Math.abs(error)).toBeLessThan(BOUND.each);
  expect(DOCUMENTED.includes(row), 'docs/performance.md says something else of it').toBe(true);
});

test('on average the prediction is nearer than that', () => {
  const mean = ERRORS.reduce((sum, { error }) => sum + Math.abs(error), 0) / ERRORS.length;
  expect(mean).toBeLessThan(BOUND.mean);
});

test.each([
  { pp: 2, vpp: 1, batch: 2 },
  { pp: 4, vpp: 1, batch: 8 },
  { pp: 4, vpp: 1, batch: 32 },
  { pp: 2, vpp: 2, batch: 4 },
  { pp: 4, vpp: 2, batch: 8 },
  { pp: 4, vpp: 4, batch: 16 },
])('pp $pp in $vpp chunks, $batch micro-batches: the bubble is that of the schedule', ({ pp, vpp, batch }) => {
  // A vocabulary of next to nothing: all stages have the same work.
  const profile = findProfile('h100-80gb');
  const { config } = resolve({
    recipe: findRecipe('qwen3-4b'),
    overrides: [
      ...['model.num_hidden_layers=64', 'model.vocab_size=8', `train.global_batch_size=${batch}`],
      `model.pipeline_model_parallel_size=${pp}`,
      ...(vpp === 1 ? [] : [`model.virtual_pipeline_model_parallel_size=${vpp}`]),
    ].map((text) => ({ text, place: 'test' })),
  });
  const { bubble, parts } = predictStep(config, validateLayout(config, pp, { device: 'cuda' }), profile);
  const simulated = simulate(buildSchedule({ stages: pp, chunks: vpp, microBatches: batch }), { overlap: true });
  expect(bubble).toBeCloseTo(simulated.bubble, 2);
  const waits =
    parts.bubble / (parts.bubble + parts.products + parts.attention + parts.memory + parts.calls + parts.exchanges);
  expect(waits).toBeCloseTo(simulated.bubble, 2);
});

test.each(profileNames())('%s: more work takes longer, and nothing beats the published peak', (name) => {
  const profile = findProfile(name);
  const at = (set: string): StepPrediction => predict({ recipe: 'qwen3-4b', ranks: 8, set }, profile);
  const [plain, full] = [at('batch 32'), at('batch 32, recompute full')];
  const selective = ['norm', 'norm,rope,swiglu', 'norm,rope,swiglu,mlp', 'norm,rope,swiglu,mlp,attention'].map(
    (modules) => at(`batch 32, recompute selective, modules [${modules}]`).stepMs,
  );
  const rising = [plain.stepMs, ...selective, full.stepMs];
  expect(rising).toEqual([...rising].sort((a, b) => a - b));
  expect(full.stepMs).toBeGreaterThan(1.15 * plain.stepMs);
  expect(at('batch 64').stepMs).toBeGreaterThan(1.8 * plain.stepMs);
  for (const { mfu, parts, stepMs } of [plain, full]) {
    expect(mfu).toBeGreaterThan(0.2);
    expect(mfu).toBeLessThan(0.8);
    expect(Object.values(parts).reduce((sum: number, ms: number) => sum + ms, 0)).toBeCloseTo(stepMs, 6);
  }
});

test('over the network the same exchange takes longer', () => {
  const profile = findProfile('h100-80gb');
  const within = predict({ recipe: 'qwen3-4b', ranks: 8, set: 'batch 32' }, profile);
  const apart = predict({ recipe: 'qwen3-4b', ranks: 8, set: 'batch 32' }, { ...profile, perNode: 1 });
  expect(apart.parts.dataParallel).toBeGreaterThan(3 * within.parts.dataParallel);
  expect(apart.parts.products).toBe(within.parts.products);
});

test.each([
  ['NVIDIA H100 80GB HBM3', 79.2, 'h100-80gb'],
  ['NVIDIA H200', 140.4, 'h200-141gb'],
  ['NVIDIA A100-SXM4-40GB', 39.6, 'a100-40gb'],
  ['NVIDIA A100-SXM4-80GB', 79.3, 'a100-80gb'],
  ['NVIDIA H100 PCIe', 79.2, undefined],
  ['NVIDIA GeForce RTX 4090', 23.6, undefined],
])('a device that is here, %s with %f GiB, is %s', (name, gib, profile) => {
  const found = profileOf({ name, totalBytes: gib * 2 ** 30 });
  expect(found?.name).toBe(profile);
  if (found !== undefined) expect(found.memoryBytes).toBe(gib * 2 ** 30);
});

test('a profile that there is not names those that there are', () => {
  expect(() => findProfile('h100-80')).toThrow(/unknown GPU h100-80 \(did you mean h100-80gb\?\)/);
});

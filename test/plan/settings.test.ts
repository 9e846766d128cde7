import { expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { validateLayout } from '../../src/config/layout.js';
import { resolve, type Resolution } from '../../src/config/resolve.js';
import { findProfile } from '../../src/plan/device-profiles.js';
import { fitOf } from '../../src/plan/fit.js';
import { predictStep } from '../../src/plan/predict-step.js';
import { rankSettings, type MemoryLimit } from '../../src/plan/rank-settings.js';
import { possibleSettings, settingOf, withSetting, type Candidate, type Setting } from '../../src/plan/settings.js';
import { planRun } from '../../src/train/plan.js';

function resolved(recipe: string, ...overrides: string[]): Resolution {
  return resolve({ recipe: findRecipe(recipe), overrides: overrides.map((text) => ({ text, place: 'test' })) });
}

function candidatesOf({ config, origins }: Resolution, worldSize: number, perNode = 8): Candidate[] {
  return possibleSettings({ config, origins, worldSize, perNode, device: 'cuda' });
}

/** The sizes of one kind that are proposed. */
function sizes(candidates: readonly Candidate[], key: keyof Setting): unknown[] {
  const found = new Map(candidates.map(({ setting }) => [String(setting[key]), setting[key]]));
  return [...found.values()].sort();
}

const H100 = findProfile('h100-80gb');
const LIMIT: MemoryLimit = {
  usableBytes: H100.memoryBytes,
  neededBytes: (plan) => fitOf(plan, H100.memoryBytes, 1).neededBytes,
};
const onward = (): Promise<boolean> => Promise.resolve(false);

test.each([
  ['qwen3-4b', 8, [], { tp: [1, 2, 4, 8], cp: [1], sharding: ['optim', 'optim_grads'] }],
  ['qwen3-4b', 6, ['train.global_batch_size=12'], { tp: [1, 2], cp: [1], pp: [1, 2, 3, 6] }],
  ['qwen2.5-0.5b', 8, [], { tp: [1, 2] }], // 14 heads, 2 of keys
  ['qwen3-4b', 8, ['model.seq_length=32768'], { cp: [1, 2, 4, 8] }],
  ['qwen3-4b', 8, ['model.tensor_model_parallel_size=2'], { tp: [2] }],
  [
    'qwen3-4b',
    8,
    ['train.micro_batch_size=4', 'model.recompute_granularity=full'],
    { microBatch: [4], recompute: ['full'] },
  ],
  [
    'qwen3-4b',
    8,
    ['model.recompute_granularity=selective', 'model.recompute_modules=[norm, attention]'],
    { recompute: ['selective'], modules: [['norm', 'attention']] },
  ],
  ['qwen3-4b', 8, ['optimizer.use_distributed_optimizer=false'], { sharding: ['no_shard'] }],
  ['qwen3-4b', 8, ['train.global_batch_size=7'], { pp: [1, 2, 4, 8] }], // no two replicas
  ['qwen3-4b', 8, ['train.global_batch_size=3', 'model.num_hidden_layers=3'], { tp: [4, 8], pp: [1, 2] }],
  ['qwen3-32b', 16, [], { tp: [1, 2, 4, 8], pp: [1, 16, 2, 4, 8] }], // inside of nodes of 8
  ['qwen3-tiny', 2, [], { tp: [1, 2], pp: [1, 2], vpp: [1, 2], microBatch: [1, 2, 4, 8] }],
] as const)('%s on %i ranks %j: %j', (recipe, ranks, overrides, expected) => {
  const request = resolved(recipe, ...overrides);
  const candidates = candidatesOf(request, ranks);
  for (const [key, values] of Object.entries(expected)) {
    expect(sizes(candidates, key as keyof Setting), key).toEqual(values);
  }
  for (const { config, layout, setting } of candidates) {
    // What a layout is refused for is never proposed, and nothing else of the configuration changes.
    expect(validateLayout(config, ranks, { device: 'cuda' })).toEqual(layout);
    expect(layout.tp * layout.cp * layout.pp * layout.dp).toBe(ranks);
    expect(layout.microBatches * setting.microBatch * layout.dp).toBe(request.config.train.global_batch_size);
    const back = withSetting(config, request.origins, settingOf(request.config)).model;
    expect(back).toEqual(request.config.model);
    expect(config.mixed_precision).toBe(request.config.mixed_precision);
  }
});

test('sequence parallelism follows each setting, unless somebody has said', () => {
  const derived = candidatesOf(resolved('qwen3-4b'), 8);
  expect(derived.filter(({ config, setting }) => config.model.sequence_parallel !== setting.tp > 1)).toEqual([]);
  const asked = candidatesOf(resolved('qwen3-4b', 'model.sequence_parallel=false'), 8);
  expect(asked.filter(({ config }) => config.model.sequence_parallel)).toEqual([]);
});

test.each([
  ['qwen3-4b', 8, []],
  ['qwen3-8b', 8, []],
  ['qwen3-4b', 4, ['mixed_precision=fp8_mixed']],
  [
    'qwen3-4b',
    1,
    ['optimizer.main_params_dtype=bf16', 'optimizer.exp_avg_dtype=bf16', 'optimizer.exp_avg_sq_dtype=bf16'],
  ],
  ['qwen3-8b', 1, ['optimizer.frozen_parameters=["model.layers.*"]', 'train.global_batch_size=4']],
  ['qwen3-4b', 2, ['train.global_batch_size=4', 'model.tensor_model_parallel_size=2']],
] as const)('%s on %i ranks %j: what is found is the fastest of all that fit', async (recipe, ranks, overrides) => {
  const candidates = candidatesOf(resolved(recipe, ...overrides), ranks);
  const { fitting, planned } = await rankSettings(candidates, H100, 'cuda', LIMIT, 3, onward);
  expect(fitting.length).toBeGreaterThan(0);
  expect(planned).toBeLessThan(candidates.length / 2);
  const steps = fitting.map(({ prediction }) => prediction.stepMs);
  expect(steps).toEqual([...steps].sort((a, b) => a - b));
  // Every faster one, planned on its own, is too large.
  const faster = candidates.filter(({ config, layout }) => predictStep(config, layout, H100).stepMs < (steps[0] ?? 0));
  const held = faster.map(({ config, layout }) =>
    LIMIT.neededBytes(planRun(config, layout.worldSize, 'cuda'), faster[0]!),
  );
  expect(held.filter((bytes) => bytes <= LIMIT.usableBytes)).toEqual([]);
  for (const { config, layout, neededBytes } of fitting) {
    expect(neededBytes).toBe(fitOf(planRun(config, layout.worldSize, 'cuda'), LIMIT.usableBytes, 1).neededBytes);
    expect(neededBytes).toBeLessThanOrEqual(LIMIT.usableBytes);
  }
});

test('where nothing fits, the smallest of what was planned is known; a stop ends the search', async () => {
  const candidates = candidatesOf(resolved('qwen3-8b'), 1);
  expect(candidates.length).toBeGreaterThan(5);
  const nothing = await rankSettings(candidates, H100, 'cuda', LIMIT, 3, onward);
  expect(nothing.fitting).toEqual([]);
  expect(nothing.smallest?.setting).toMatchObject({ microBatch: 1, recompute: 'full' });
  const stopped = await rankSettings(candidatesOf(resolved('qwen3-4b'), 8), H100, 'cuda', LIMIT, 3, () =>
    Promise.resolve(true),
  );
  expect(stopped).toMatchObject({ fitting: [], planned: 0 });
});

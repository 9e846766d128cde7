import { describe, expect, test } from 'vitest';
import { qwen3PretrainConfig, qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import type { RecipeOverrides } from '../../recipes/recipe.js';
import { resolvePrecision, validateLayout } from '../../src/config/layout.js';
import type { MbridgeError } from '../../src/base/errors.js';

const tp = (size: number): RecipeOverrides => ({ tensor_model_parallel_size: size });
const pp = (size: number): RecipeOverrides => ({ pipeline_model_parallel_size: size });
const cp = (size: number): RecipeOverrides => ({ context_parallel_size: size });

test.each<[RecipeOverrides, number, Partial<ReturnType<typeof validateLayout>>]>([
  [{}, 1, { tp: 1, dp: 1, pp: 1, vpp: 1, microBatches: 8 }],
  [{}, 8, { dp: 8, microBatches: 1 }],
  [{ ...tp(2), ...pp(2) }, 8, { tp: 2, pp: 2, dp: 2, cp: 1, ep: 1, microBatches: 4 }],
  [{ ...pp(4), num_layers_in_first_pipeline_stage: 1 }, 4, { pp: 4, dp: 1 }],
  [{ ...pp(2), num_layers_in_first_pipeline_stage: 3, num_layers_in_last_pipeline_stage: 1 }, 2, { pp: 2 }],
  [{ ...pp(3) }, 3, { pp: 3 }],
  [{ ...pp(2), virtual_pipeline_model_parallel_size: 2 }, 2, { vpp: 2, microBatches: 8 }],
  [{ ...tp(4), sequence_parallel: false, seq_length: 255 }, 4, { tp: 4 }],
  [{ ...tp(4), seq_length: 255 }, 4, { tp: 4 }],
  [{ ...tp(2), ...cp(2), ...pp(2) }, 16, { tp: 2, cp: 2, dp: 2, pp: 2, microBatches: 4 }],
  [{ ...cp(3), seq_length: 6 }, 3, { cp: 3, dp: 1 }],
  [{ ...tp(4), ...cp(2), seq_length: 12 }, 8, { tp: 4, cp: 2 }],
])('%j on %i processes', (overrides, world, layout) => {
  expect(validateLayout(qwen3TinyPretrainConfig(overrides), world)).toMatchObject({ worldSize: world, ...layout });
});

test.each<[RecipeOverrides, number, string]>([
  [
    { ...tp(3), sequence_parallel: true },
    3,
    '2 problems\n' +
      '  model.tensor_model_parallel_size: 3 does not divide model.num_attention_heads 8, model.num_key_value_heads 4; ' +
      'this model takes 1, 2, 4\n' +
      '  model.sequence_parallel: tp 3 does not divide 256 tokens a micro-batch (seq_length 256 x micro_batch_size 1); ' +
      'change seq_length or set this to false',
  ],
  [
    { ...tp(2), ...pp(2) },
    6,
    'tp 2 x pp 2 = 4 does not divide the 6 processes; change one of them (--nproc, --tp-size, --cp-size, --pp-size)',
  ],
  [
    { ...tp(2), ...pp(2) },
    2,
    'tp 2 x pp 2 = 4 does not divide the 2 processes; start 4 or a multiple of it (--nproc, --tp-size, --cp-size, --pp-size)',
  ],
  [
    { ...cp(3), ...pp(2), seq_length: 6 },
    8,
    'tp 1 x cp 3 x pp 2 = 6 does not divide the 8 processes; change one of them (--nproc, --tp-size, --cp-size, --pp-size)',
  ],
  [
    { ...cp(4), seq_length: 100 },
    4,
    'model.context_parallel_size: 2 x 4 chunks do not divide the seq_length of 100; make that a multiple of 8, or change this',
  ],
  [
    { ...tp(4), ...cp(2), seq_length: 12, sequence_parallel: true },
    8,
    'model.sequence_parallel: tp 4 does not divide 6 tokens a micro-batch (seq_length 12 x micro_batch_size 1 / cp 2); change seq_length or set this to false',
  ],
  [pp(5), 5, 'model.pipeline_model_parallel_size: 5 stages are more than the 4 layers; use at most 4'],
  [
    { ...pp(2), num_hidden_layers: 6, virtual_pipeline_model_parallel_size: 2 },
    2,
    'model.virtual_pipeline_model_parallel_size: pp 2 x 2 chunks = 4 does not divide the 6 layers; interleaved stages need equal chunks',
  ],
  [
    { virtual_pipeline_model_parallel_size: 2 },
    1,
    'model.virtual_pipeline_model_parallel_size: 2 chunks a stage need pp of at least 2; leave it unset',
  ],
  [
    { ...pp(2), virtual_pipeline_model_parallel_size: 2, global_batch_size: 3 },
    2,
    'train.global_batch_size: gives 3 micro-batches a replica; interleaved stages need a multiple of pp 2: use a multiple of 2',
  ],
  [
    { global_batch_size: 10, micro_batch_size: 2 },
    2,
    'train.global_batch_size: 10 is not a multiple of micro_batch_size 2 x dp 2; use a multiple of 4',
  ],
  [
    { ...pp(2), num_layers_in_first_pipeline_stage: 4 },
    2,
    'model.num_layers_in_first_pipeline_stage: leaves 0 of 4 layers to 1 other stages; each needs at least one and none may be left',
  ],
  [
    { num_layers_in_last_pipeline_stage: 2 },
    1,
    'model.num_layers_in_last_pipeline_stage: is for pp of at least 2; leave it unset',
  ],
  [
    { mixed_precision: 'bf16_mixed', dist: { device: 'cpu' } },
    1,
    'mixed_precision: bf16_mixed runs on GPUs only; use auto or fp32 on the CPU',
  ],
  [
    { ...cp(2), batch_invariant: true },
    2,
    'model.batch_invariant: cp 2 puts a softmax together from parts; leave cp at 1, or set this to false',
  ],
  [
    { batch_invariant: true, mixed_precision: 'fp32', dist: { device: 'cuda' } },
    1,
    'model.batch_invariant: on GPUs it does not hold with mixed_precision fp32, only with bf16_mixed; change that, or set this to false',
  ],
  [
    { batch_invariant: true, tensor_model_parallel_size: 4, sequence_parallel: false, dist: { device: 'cuda' } },
    4,
    'model.batch_invariant: on GPUs it does not hold at tp 4 without model.sequence_parallel and dist.peer_memory; change that, or set this to false',
  ],
])('%j on %i processes is refused', (overrides, world, message) => {
  const cfg = qwen3TinyPretrainConfig(overrides);
  expect(() => validateLayout(cfg, world)).toThrow(
    expect.objectContaining({ message, exitCode: 3, code: 'MB_CONFIG_LAYOUT' }) as MbridgeError,
  );
});

test('a layout problem names the place that set the value', () => {
  const origins = new Map([['model.pipeline_model_parallel_size', { origin: 'flag', place: '--pp-size' }]] as const);
  expect(() => validateLayout(qwen3TinyPretrainConfig(pp(5)), 5, { origins })).toThrow(
    /^--pp-size model.pipeline_model_parallel_size: 5 stages/,
  );
});

describe('precision', () => {
  test('auto follows the device', () => {
    const cfg = qwen3PretrainConfig('4b');
    expect([resolvePrecision(cfg, 'cuda'), resolvePrecision(cfg, 'cpu')]).toEqual(['bf16_mixed', 'fp32']);
    expect(resolvePrecision({ mixed_precision: 'fp32' }, 'cuda')).toBe('fp32');
  });
});

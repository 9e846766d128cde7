import { join } from 'node:path';
import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import type { RecipeOverrides } from '../../recipes/recipe.js';
import { MbridgeError } from '../../src/base/errors.js';
import { resolvePrecision, validateLayout } from '../../src/config/layout.js';
import { stageSpec } from '../../src/model/stage/stage-spec.js';
import { findProfile } from '../../src/plan/device-profiles.js';
import { predictStep } from '../../src/plan/predict-step.js';
import { evaluateChoices } from '../../src/run-evaluation.js';
import { refuseWithoutFp8 } from '../../src/train/fp8-device.js';
import { planRun } from '../../src/train/plan.js';

const cuda = { mixed_precision: 'fp8_mixed', fp8_first_last_layers_bf16: 0, dist: { device: 'cuda' } } as const;

function problemOf(overrides: RecipeOverrides, ranks: number): unknown {
  try {
    validateLayout(qwen3TinyPretrainConfig(overrides), ranks);
  } catch (error) {
    if (error instanceof MbridgeError) return `${error.code} ${error.message}`;
    throw error;
  }
  return null;
}

const { model: MODEL } = qwen3TinyPretrainConfig(cuda);
const LAYOUT = 'MB_CONFIG_LAYOUT model';
const RULE = "not a multiple of 128, the width of fp8_mixed's blocks";

test.each<[RecipeOverrides, number, string | null]>([
  [cuda, 1, null],
  [{ ...cuda, context_parallel_size: 2, seq_length: 512 }, 2, null],
  [
    { ...cuda, dist: { device: 'cpu' } },
    1,
    'MB_CONFIG_LAYOUT mixed_precision: fp8_mixed runs on GPUs only, whose products of e4m3 it is for; use auto or fp32 on the CPU',
  ],
  [{ ...cuda, hidden_size: 320 }, 1, `${LAYOUT}.hidden_size: 320 is ${RULE}; use bf16_mixed`],
  [
    { ...cuda, intermediate_size: 800 },
    1,
    `${LAYOUT}.tensor_model_parallel_size: 1 leaves intermediate_size 800 a width of 800, ${RULE}; use bf16_mixed`,
  ],
  [
    { ...cuda, tensor_model_parallel_size: 2 },
    2,
    `${LAYOUT}.tensor_model_parallel_size: 2 leaves the 4 heads of keys and values of 32 a width of 64, ${RULE}; use 1, or bf16_mixed`,
  ],
  [
    {
      ...{ ...cuda, tensor_model_parallel_size: 12, hidden_size: 1152, intermediate_size: 3456 },
      ...{ head_dim: 96, num_attention_heads: 12, num_key_value_heads: 12 },
    },
    12,
    `${LAYOUT}.tensor_model_parallel_size: 12 leaves the 12 heads of 96 a width of 96, ${RULE}; use 1, 3, or bf16_mixed`,
  ],
  [
    { ...cuda, tensor_model_parallel_size: 8, num_attention_heads: 4, head_dim: 64 },
    8,
    `${LAYOUT}.tensor_model_parallel_size: 8 does not divide model.num_attention_heads 4, model.num_key_value_heads 4; this model takes 1, 2, 4`,
  ],
  [
    { ...cuda, seq_length: 192 },
    1,
    `${LAYOUT}.seq_length: 192 tokens are ${RULE}; make it a multiple of 128, or use bf16_mixed`,
  ],
  [
    { ...cuda, context_parallel_size: 2 },
    2,
    `${LAYOUT}.seq_length: at cp 2 a chunk of 256 tokens has 64, ${RULE}; make it a multiple of 512, or use bf16_mixed`,
  ],
])('%j on %i processes', (overrides, ranks, problem) => {
  expect(problemOf(overrides, ranks)).toBe(problem);
});

test.each<[RecipeOverrides, string]>([
  [
    { ...cuda, batch_invariant: true },
    'MB_CONFIG_VALUE argument batch_invariant model.batch_invariant: does not hold with fp8_mixed: sampled tokens come of bf16 products, trained ones of e4m3; set it to false, or use bf16_mixed',
  ],
  [
    { ...cuda, fp8_first_last_layers_bf16: 2 },
    'MB_CONFIG_VALUE argument fp8_first_last_layers_bf16 model.fp8_first_last_layers_bf16: 2 at either end are all of the 4 layers; lower it, or use bf16_mixed',
  ],
  [
    { ...cuda, peft: { type: 'lora' } },
    'MB_CONFIG_NOT_BUILT argument peft peft.type: products of e4m3 beside adapters are not built yet; use mixed_precision=bf16_mixed',
  ],
  [
    { fp8_wgrad: false },
    'MB_CONFIG_VALUE argument fp8_wgrad model.fp8_wgrad: is for mixed_precision fp8_mixed, not auto; set that, or this to true',
  ],
  [
    { fp8_first_last_layers_bf16: 1, mixed_precision: 'bf16_mixed' },
    'MB_CONFIG_VALUE argument fp8_first_last_layers_bf16 model.fp8_first_last_layers_bf16: is for mixed_precision fp8_mixed, not bf16_mixed; set that, or this to 2',
  ],
])('%j contradicts itself', (overrides, problem) => {
  expect(problemOf(overrides, 1)).toBe(problem);
});

test.each([
  [120, false],
  [100, false],
  [90, true],
  [89, false],
  [80, false],
])('a GPU of capability %i / 10 has its products: %s', (capability, has) => {
  const info = { name: 'GPU', capability } as Parameters<typeof refuseWithoutFp8>[1]['info'];
  const check = (fp8: Parameters<typeof refuseWithoutFp8>[0]['fp8']) => (): void => {
    refuseWithoutFp8({ fp8 }, { kind: 'cuda', info });
  };
  expect(check(null)).not.toThrow();
  const refused = expect.objectContaining({ code: 'MB_FP8_DEVICE', exitCode: 4 }) as MbridgeError;
  if (has) expect(check({ wgrad: true, bf16Ends: 0 })).not.toThrow();
  else expect(check({ wgrad: true, bf16Ends: 0 })).toThrow(refused);
});

test('layers at the ends are those of the whole model, whatever stage and chunk they are in', () => {
  const fp8Layers = (set: RecipeOverrides, ranks: number): number[] => {
    const plan = (more: RecipeOverrides, count: number): number[] => {
      const cfg = qwen3TinyPretrainConfig({ ...cuda, num_hidden_layers: 4, ...more });
      return planRun(cfg, count, 'cuda').ranks.map(({ bytes }) => bytes.fp8);
    };
    const [all = 0] = plan({}, 1);
    return plan({ fp8_first_last_layers_bf16: 1, ...set }, ranks).map((bytes) => bytes / (all / 4));
  };
  const pp = { pipeline_model_parallel_size: 2 };
  expect(fp8Layers({}, 1)).toEqual([2]);
  expect(fp8Layers({ ...pp, num_layers_in_first_pipeline_stage: 1 }, 2)).toEqual([0, 2]);
  expect(fp8Layers({ ...pp, virtual_pipeline_model_parallel_size: 2 }, 2)).toEqual([1, 1]);
});

test('what only a backward takes is not there for a model that is not trained', () => {
  const bytesOf = (trainable: boolean) =>
    planRun(qwen3TinyPretrainConfig(cuda), 1, 'cuda', { trainable }).ranks[0]!.bytes;
  const [trained, untrained] = [bytesOf(true), bytesOf(false)];
  expect(untrained.fp8 / trained.fp8).toBeCloseTo(1 / 2, 2);
  // Of the norms' outputs and SwiGLU's.
  const { hidden_size: hidden, intermediate_size: ffn, num_hidden_layers: layers, seq_length: tokens } = MODEL;
  expect((trained.activations - untrained.activations) / (layers * tokens * (2 * hidden + ffn))).toBeCloseTo(1, 2);
});

test.each([1, 2])('rows of choices have a length that it takes, at cp %i', async (cp) => {
  const model = { seq_length: 1024, context_parallel_size: cp };
  const cfg = qwen3TinyPretrainConfig({ ...cuda, ...model, dist: { device: 'cpu' } });
  const path = join(import.meta.dirname, '../../fixtures/choices/questions.jsonl');
  // All that is wrong is said at once.
  const wrong = expect.stringMatching(/^[^\n]*mixed_precision: fp8_mixed runs on GPUs only[^\n]*$/) as string;
  await expect(evaluateChoices(cfg, { path }, { nproc: cp })).rejects.toMatchObject({ message: wrong });
});

test('a model that only generates has no products of e4m3, and takes any GPU', () => {
  const one = { rank: 0, size: 1 };
  const place = { tp: one, cp: one, pp: one, dp: one, dpCp: one };
  const specOf = (onlyGenerates: boolean) =>
    stageSpec(qwen3TinyPretrainConfig(cuda), place, { device: 'cuda', onlyGenerates });
  expect(specOf(false).fp8).toEqual({ wgrad: true, bf16Ends: 0 });
  expect(specOf(true).fp8).toBeNull();
});

test('it says itself what it is, on a GPU', () => {
  expect(resolvePrecision(cuda, 'cuda')).toBe('fp8_mixed');
});

test('a step is predicted to be faster than in bf16, the more the fewer layers stay in that', () => {
  const sizes = {
    hidden_size: 4096,
    intermediate_size: 12288,
    head_dim: 128,
    num_attention_heads: 32,
    seq_length: 4096,
  };
  const stepMs = (set: RecipeOverrides, gpu = 'h100-80gb'): number => {
    const cfg = qwen3TinyPretrainConfig({ ...sizes, num_hidden_layers: 8, ...set });
    return predictStep(cfg, validateLayout(cfg, 1, { device: 'cuda' }), findProfile(gpu)).stepMs;
  };
  const choices = [{}, { ...cuda, fp8_first_last_layers_bf16: 2 }, { ...cuda, fp8_wgrad: false }, cuda].map((set) =>
    stepMs(set),
  );
  expect(choices).toEqual([...choices].sort((a, b) => b - a));
  expect(() => stepMs(cuda, 'a100-80gb')).toThrow(expect.objectContaining({ code: 'MB_FP8_DEVICE' }) as MbridgeError);
});

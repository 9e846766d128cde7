import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { readHfConfig } from '../../src/families/hf-config.js';
import { modelShape } from '../../src/families/model-shape.js';
import { resolveConfig } from '../../src/config/resolve.js';

/** As transformers 5 writes a small Qwen3, less what we do not read. */
const QWEN3 = {
  architectures: ['Qwen3ForCausalLM'],
  attention_bias: false,
  attention_dropout: 0,
  head_dim: 16,
  hidden_act: 'silu',
  hidden_size: 64,
  initializer_range: 0.03,
  intermediate_size: 192,
  layer_types: ['full_attention', 'full_attention'],
  max_position_embeddings: 512,
  max_window_layers: 28,
  model_type: 'qwen3',
  num_attention_heads: 8,
  num_hidden_layers: 2,
  num_key_value_heads: 4,
  rms_norm_eps: 1e-5,
  rope_parameters: { rope_theta: 5000, rope_type: 'default' },
  sliding_window: null,
  tie_word_embeddings: true,
  use_sliding_window: false,
  vocab_size: 512,
};

const LLAMA = { architectures: ['LlamaForCausalLM'], model_type: 'llama' };
const LLAMA3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };

const made: string[] = [];
afterAll(() => {
  for (const path of made) rmSync(path, { recursive: true, force: true });
});

function folder(changes: Record<string, unknown>): string {
  const path = mkdtempSync(join(tmpdir(), 'mbridge-hf-'));
  made.push(path);
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...QWEN3, ...changes }));
  return path;
}

test('every size comes from config.json', () => {
  const config = resolveConfig({
    overrides: [`model.hf_path=${folder({})}`, 'model.seq_length=64', 'train.train_iters=1'].map((text) => ({
      text,
      place: '',
    })),
  });
  expect(modelShape(config)).toEqual({
    family: 'qwen3',
    vocabSize: 512,
    hiddenSize: 64,
    intermediateSize: 192,
    numLayers: 2,
    numHeads: 8,
    numKvHeads: 4,
    headDim: 16,
    rmsNormEps: 1e-5,
    ropeTheta: 5000,
    ropeScaling: null,
    tieWordEmbeddings: true,
    padTokenId: null,
    initializerRange: 0.03,
    maxPositionEmbeddings: 512,
  });
});

test('it wins over the recipe, and keys set beside it win over it', () => {
  const overrides = ['model.num_hidden_layers=1', `model.hf_path=${folder({})}`, 'model.seq_length=64'];
  const config = resolveConfig({
    recipe: findRecipe('qwen3-4b'),
    overrides: overrides.map((text) => ({ text, place: '' })),
  });
  expect(modelShape(config)).toMatchObject({ hiddenSize: 64, numLayers: 1, vocabSize: 512 });
});

test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
  ['rope_theta at the top', { rope_theta: 7, rope_parameters: undefined }, { rope_theta: 7 }],
  ['no head_dim', { head_dim: null }, {}],
  ['untied where it does not say', { tie_word_embeddings: undefined }, { tie_word_embeddings: false }],
  ['no architectures', { architectures: undefined }, { vocab_size: 512, family: 'qwen3' }],
  ['no model_type', { model_type: undefined }, { family: 'qwen3' }],
  ['no head_dim at all', { head_dim: undefined }, { head_dim: 128 }],
  ['no theta at all', { rope_parameters: undefined }, { rope_theta: 10_000 }],
  ['two thetas', { rope_theta: 777 }, { rope_theta: 5000 }],
  ['a theta in rope_scaling', { rope_scaling: { rope_type: 'default', rope_theta: 9 } }, { rope_theta: 9 }],
  ['a padding token', { pad_token_id: 3 }, { pad_token_id: 3 }],
  ['swish, which is silu', { hidden_act: 'swish' }, { vocab_size: 512 }],
  ['a linear factor of 1', { rope_parameters: { rope_type: 'linear', factor: 1, rope_theta: 5 } }, { rope_theta: 5 }],
  [
    'an old yarn, of keys that are null and of another scaling',
    {
      rope_scaling: { type: 'yarn', factor: 4, attention_factor: null, low_freq_factor: 1 },
      rope_parameters: undefined,
    },
    { rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 512 } },
  ],
  [
    'a dynamic scaling, which is of max_position_embeddings',
    { rope_parameters: { rope_type: 'dynamic', factor: 2, original_max_position_embeddings: 9, rope_theta: 5 } },
    { rope_theta: 5, rope_scaling: { rope_type: 'dynamic', factor: 2 } },
  ],
  ['a window over no layer', { use_sliding_window: true, layer_types: null, max_window_layers: 2 }, {}],
  [
    'Llama without head_dim and kv heads',
    { ...LLAMA, head_dim: null, num_key_value_heads: null },
    { head_dim: 8, num_key_value_heads: 8 },
  ],
  [
    "Llama 3's scaling",
    { rope_parameters: undefined, rope_theta: 5, rope_scaling: { ...LLAMA3, type: 'llama3' } },
    { rope_theta: 5, rope_scaling: { ...LLAMA3, original_max_position_embeddings: 512 } },
  ],
])('%s', (_, changes, sizes) => {
  expect(readHfConfig(folder(changes))).toMatchObject({ sizes });
});

test.each<[Record<string, unknown>, string]>([
  [
    { architectures: ['Qwen3MoeForCausalLM'] },
    'holds Qwen3MoeForCausalLM of model_type qwen3, which is not built. Built are Qwen3ForCausalLM',
  ],
  [{ architectures: undefined, model_type: 'mistral' }, 'holds mistral'],
  [{ attention_bias: true }, 'attention_bias is true'],
  [{ attention_dropout: 0.1 }, 'attention_dropout is 0.1; dropout is not built'],
  [{ hidden_act: 'gelu' }, 'hidden_act is gelu'],
  [
    { rope_scaling: { type: 'longrope', factor: 4 } },
    'scales the rotary embedding (longrope); built are default, linear, dynamic, yarn, llama3',
  ],
  [{ rope_parameters: { rope_type: 'linear' } }, 'the linear scaling of its rotary embedding is not complete: factor'],
  [{ rope_parameters: { rope_type: 'yarn', factor: 2, warp: 1 } }, 'is not complete: Unrecognized key: "warp"'],
  [{ use_sliding_window: true, layer_types: undefined, max_window_layers: 1 }, 'uses sliding-window attention'],
  [{ layer_types: ['full_attention', 'sliding_attention'] }, 'uses sliding-window attention'],
  [{ partial_rotary_factor: 0.5 }, 'rotates a part of each head'],
  [{ layer_types: ['full_attention'] }, 'layer_types names 1 layers, num_hidden_layers is 2'],
  [{ rope_parameters: { full_attention: { rope_theta: 1 } } }, 'a rotary embedding of its own for full_attention'],
  [{ rope_scaling: { ...LLAMA3, factor: -8 } }, 'the llama3 scaling of its rotary embedding is not complete: factor'],
  [{ ...LLAMA, attention_bias: true }, 'attention_bias is true; biases are built for q, k and v alone'],
  [{ ...LLAMA, mlp_bias: true }, 'mlp_bias is true; biases are built for q, k and v alone'],
  [{ quantization_config: { quant_method: 'awq' } }, 'has a quantization_config (awq); quantised weights'],
  [
    { architectures: ['Qwen3MoeForCausalLM'], model_type: 'qwen3_moe', num_experts: 8, moe_intermediate_size: 4 },
    'norms on the heads of q and k, no biases); Qwen2ForCausalLM (Qwen2 and Qwen2.5: biases on q, k and v)',
  ],
  [
    { architectures: ['Qwen3MoeForCausalLM'], model_type: 'qwen3_moe', num_experts: 8, moe_intermediate_size: 4 },
    '. None of these knows its num_experts, moe_intermediate_size',
  ],
])('%j is refused', (changes, problem) => {
  expect(readHfConfig(folder(changes))).toEqual({ problem: expect.stringContaining(problem) as string });
});

test('a file that is no JSON names itself', () => {
  const path = folder({});
  writeFileSync(join(path, 'config.json'), '{"vocab_size": ');
  expect(readHfConfig(path)).toEqual({ problem: expect.stringContaining(`${path}/config.json is not JSON`) as string });
});

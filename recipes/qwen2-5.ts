import type { RunConfig } from '../src/config/schema.js';
import { pretrainRecipe, recipeConfig, type Recipe, type RecipeOverrides } from './recipe.js';

/** The base models' config.json files. [layers, hidden, heads, kv heads, ffn, vocabulary, tied, epsilon, longest] */
const SIZES = {
  '0.5b': [24, 896, 14, 2, 4864, 151936, true, 1e-6, 32768],
  '1.5b': [28, 1536, 12, 2, 8960, 151936, true, 1e-6, 131072],
  '3b': [36, 2048, 16, 2, 11008, 151936, true, 1e-6, 32768],
  '7b': [28, 3584, 28, 4, 18944, 152064, false, 1e-6, 131072],
  '14b': [48, 5120, 40, 8, 13824, 152064, false, 1e-5, 131072],
  '32b': [64, 5120, 40, 8, 27648, 152064, false, 1e-5, 131072],
  '72b': [80, 8192, 64, 8, 29568, 152064, false, 1e-5, 131072],
} as const;

export type Qwen25Size = keyof typeof SIZES;

function recipeOf(size: Qwen25Size): Recipe {
  const [layers, hidden, heads, kvHeads, ffn, vocabulary, tied, epsilon, longest] = SIZES[size];
  return pretrainRecipe(`qwen2.5-${size}`, `Qwen2.5 ${size.toUpperCase()}`, {
    family: 'qwen2',
    vocab_size: vocabulary,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: hidden / heads,
    rms_norm_eps: epsilon,
    rope_theta: 1e6,
    tie_word_embeddings: tied,
    max_position_embeddings: longest,
  });
}

export const QWEN25_RECIPES: readonly Recipe[] = (Object.keys(SIZES) as Qwen25Size[]).map(recipeOf);

/** The pretraining configuration of a Qwen2.5, `overrides` laid over it. */
export function qwen25PretrainConfig(size: Qwen25Size, overrides?: RecipeOverrides): RunConfig {
  return recipeConfig(recipeOf(size), overrides);
}

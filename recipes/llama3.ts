import type { RunConfig } from '../src/config/schema.js';
import { pretrainRecipe, recipeConfig, type Recipe, type RecipeOverrides } from './recipe.js';

/** config.json files. [layers, hidden, heads, kv heads, head width, ffn, tied, what long waves are divided by] */
const SIZES = {
  '3-8b': [32, 4096, 32, 8, 128, 14336, false, null],
  '3-70b': [80, 8192, 64, 8, 128, 28672, false, null],
  '3.1-8b': [32, 4096, 32, 8, 128, 14336, false, 8],
  '3.1-70b': [80, 8192, 64, 8, 128, 28672, false, 8],
  '3.1-405b': [126, 16384, 128, 8, 128, 53248, false, 8],
  '3.2-1b': [16, 2048, 32, 8, 64, 8192, true, 32],
  '3.2-3b': [28, 3072, 24, 8, 128, 8192, true, 32],
  '3.3-70b': [80, 8192, 64, 8, 128, 28672, false, 8],
} as const;

/** Version and size: `3.1-8b`. */
export type Llama3Size = keyof typeof SIZES;

const ORIGINAL_LENGTH = 8192;

function recipeOf(size: Llama3Size): Recipe {
  const [layers, hidden, heads, kvHeads, headDim, ffn, tied, factor] = SIZES[size];
  return pretrainRecipe(`llama${size}`, `Llama ${size.toUpperCase().replace('-', ' ')}`, {
    family: 'llama',
    vocab_size: 128256,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    rms_norm_eps: 1e-5,
    rope_theta: 5e5,
    rope_scaling:
      factor === null
        ? null
        : {
            rope_type: 'llama3',
            factor,
            low_freq_factor: 1,
            high_freq_factor: 4,
            original_max_position_embeddings: ORIGINAL_LENGTH,
          },
    tie_word_embeddings: tied,
    max_position_embeddings: factor === null ? ORIGINAL_LENGTH : 131072,
  });
}

export const LLAMA3_RECIPES: readonly Recipe[] = (Object.keys(SIZES) as Llama3Size[]).map(recipeOf);

/** The pretraining configuration of a Llama 3, `overrides` laid over it. */
export function llama3PretrainConfig(size: Llama3Size, overrides?: RecipeOverrides): RunConfig {
  return recipeConfig(recipeOf(size), overrides);
}

import type { RunConfig } from '../src/config/schema.js';
import { pretrainRecipe, recipeConfig, type Recipe, type RecipeOverrides } from './recipe.js';

/** Dense sizes: Qwen3's config.json files. [layers, hidden, heads, kv heads, ffn, tied] */
const SIZES = {
  '0.6b': [28, 1024, 16, 8, 3072, true],
  '1.7b': [28, 2048, 16, 8, 6144, true],
  '4b': [36, 2560, 32, 8, 9728, true],
  '8b': [36, 4096, 32, 8, 12288, false],
  '14b': [40, 5120, 40, 8, 17408, false],
  '32b': [64, 5120, 64, 8, 25600, false],
} as const;

export type Qwen3Size = keyof typeof SIZES;

function recipeOf(size: Qwen3Size): Recipe {
  const [layers, hidden, heads, kvHeads, ffn, tied] = SIZES[size];
  return pretrainRecipe(`qwen3-${size}`, `Qwen3 ${size.toUpperCase()}`, {
    family: 'qwen3',
    vocab_size: 151936,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: 128,
    tie_word_embeddings: tied,
    max_position_embeddings: 40960,
  });
}

/** Small enough for two cores: real text, one token a byte; the loss falls visibly within its updates. */
const TINY: Recipe = {
  name: 'qwen3-tiny',
  description: 'Qwen3 of 4 layers, hidden 256, on the text of Moby-Dick byte by byte; trains on a CPU in a minute',
  config: {
    model: {
      vocab_size: 256,
      hidden_size: 256,
      intermediate_size: 768,
      num_hidden_layers: 4,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 32,
      tie_word_embeddings: true,
      max_position_embeddings: 4096,
      seq_length: 256,
    },
    train: { train_iters: 50, global_batch_size: 8, micro_batch_size: 1 },
    optimizer: { lr: 3e-3, min_lr: 3e-4 },
    scheduler: { lr_decay_style: 'cosine', lr_warmup_fraction: 0.1 },
    dataset: { type: 'text', path: 'builtin:moby-dick' },
    tokenizer: { type: 'byte' },
  },
};

const DENSE = Object.keys(SIZES) as Qwen3Size[];

export const QWEN3_RECIPES: readonly Recipe[] = [TINY, ...DENSE.map(recipeOf)];

/** The pretraining configuration of a dense Qwen3, `overrides` laid over it. */
export function qwen3PretrainConfig(size: Qwen3Size, overrides?: RecipeOverrides): RunConfig {
  return recipeConfig(recipeOf(size), overrides);
}

export function qwen3TinyPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return recipeConfig(TINY, overrides);
}

export function qwen306bPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return qwen3PretrainConfig('0.6b', overrides);
}

export function qwen317bPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return qwen3PretrainConfig('1.7b', overrides);
}

export function qwen34bPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return qwen3PretrainConfig('4b', overrides);
}

export function qwen38bPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return qwen3PretrainConfig('8b', overrides);
}

export function qwen314bPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return qwen3PretrainConfig('14b', overrides);
}

export function qwen332bPretrainConfig(overrides?: RecipeOverrides): RunConfig {
  return qwen3PretrainConfig('32b', overrides);
}

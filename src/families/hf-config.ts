import { statSync } from 'node:fs';
import { join } from 'node:path';
import { staysInside } from '../base/own-file.js';
import { isPlainObject } from '../base/plain-object.js';
import { readTextFile } from '../base/regular-file.js';

/** More than any config.json has. */
const MOST_BYTES = 16 << 20;

/** The `model` keys that a Hugging Face config.json gives, or what is wrong with it. */
export type HfConfig = { readonly sizes: Readonly<Record<string, unknown>> } | { readonly problem: string };

const COPIED = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'head_dim',
  'rms_norm_eps',
  'initializer_range',
  'max_position_embeddings',
] as const;

/** Reads `folder`/config.json of a Qwen3ForCausalLM. Whatever our kernels would compute differently is a problem. */
export function readHfConfig(folder: string): HfConfig {
  const file = join(folder, 'config.json');
  let config: unknown;
  try {
    if (!statSync(folder).isDirectory()) return { problem: `${folder} is not a folder; give the one of config.json` };
    if (!staysInside(folder, 'config.json')) return { problem: `${file} is a link that leads out of its folder` };
    config = JSON.parse(readTextFile(file, MOST_BYTES));
  } catch (error) {
    if (error instanceof SyntaxError) return { problem: `${file} is not JSON: ${error.message}` };
    return {
      problem: `cannot read ${file}: ${(error as Error).message}`,
    };
  }
  if (!isPlainObject(config)) return { problem: `${file} is not a JSON object` };
  const refusal = refuse(config);
  return refusal === undefined ? { sizes: sizesOf(config) } : { problem: `${file}: ${refusal}` };
}

/** What of `config` we do not compute, or undefined. */
function refuse(config: Record<string, unknown>): string | undefined {
  const architectures = Array.isArray(config['architectures']) ? config['architectures'] : [];
  if (architectures.length > 0 ? architectures[0] !== 'Qwen3ForCausalLM' : config['model_type'] !== 'qwen3') {
    const found = String(architectures[0] ?? config['model_type'] ?? 'no architecture');
    return `holds ${found}; only Qwen3ForCausalLM (dense Qwen3) is built`;
  }
  if (config['attention_bias'] === true) return 'attention_bias is true; Qwen3 has no biases and none are built';
  if ((config['attention_dropout'] ?? 0) !== 0) return 'attention_dropout is not 0; dropout is not built';
  if ((config['hidden_act'] ?? 'silu') !== 'silu') return `hidden_act is ${config['hidden_act']}; only silu is built`;
  const layerTypes = Array.isArray(config['layer_types']) ? config['layer_types'] : [];
  if (config['use_sliding_window'] === true || layerTypes.some((t) => t !== 'full_attention')) {
    return 'uses sliding-window attention; only full attention is built';
  }
  const rope = ropeOf(config);
  const ropeType = rope['rope_type'] ?? rope['type'] ?? 'default';
  if (ropeType !== 'default') return `scales the rotary embedding (${ropeType}); only the default is built`;
  if ((config['partial_rotary_factor'] ?? rope['partial_rotary_factor'] ?? 1) !== 1) {
    return 'rotates a part of each head only; only the whole is built';
  }
  return undefined;
}

/** transformers 5 keeps the rotary settings in rope_parameters, older versions in rope_scaling. */
function ropeOf(config: Record<string, unknown>): Record<string, unknown> {
  for (const key of ['rope_parameters', 'rope_scaling']) if (isPlainObject(config[key])) return config[key];
  return {};
}

function sizesOf(config: Record<string, unknown>): Record<string, unknown> {
  const copied = COPIED.filter((key) => config[key] !== undefined && config[key] !== null).map((key) => [
    key,
    config[key],
  ]);
  const ropeTheta = config['rope_theta'] ?? ropeOf(config)['rope_theta'];
  return {
    ...(Object.fromEntries(copied) as Record<string, unknown>),
    ...(ropeTheta === undefined ? {} : { rope_theta: ropeTheta }),
    // Hugging Face's Qwen3 is untied where the file does not say.
    tie_word_embeddings: config['tie_word_embeddings'] ?? false,
  };
}

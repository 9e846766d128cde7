import { statSync } from 'node:fs';
import { join } from 'node:path';
import { staysInside } from '../base/own-file.js';
import { isPlainObject } from '../base/plain-object.js';
import { readTextFile } from '../base/regular-file.js';
import { FAMILIES } from './families.js';
import type { Family } from './family.js';
import { readHfRope } from './hf-rope.js';
import { MODEL_KEYS, type ModelSettings } from './model-shape.js';

/** More than any config.json has. */
const MOST_BYTES = 16 << 20;

/** The `model` keys that a Hugging Face config.json gives, or what is wrong with it. */
export type HfConfig = { readonly sizes: Partial<Record<keyof ModelSettings, unknown>> } | { readonly problem: string };

type Json = Readonly<Record<string, unknown>>;

/**
 * Reads `folder`/config.json of a family that is built, as transformers reads it: what is not said has transformers'
 * default. Whatever our kernels would compute differently is a problem.
 */
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
  const found = hfSettings(config);
  return 'problem' in found ? { problem: `${file}: ${found.problem}` } : found;
}

/** {@link readHfConfig} of the file's content. */
export function hfSettings(config: Json): HfConfig {
  const family = familyIn(config);
  if (family === undefined) return { problem: unknownFamily(config) };
  const said: Json = { ...defaultsOf(family, config), ...withoutNulls(config) };
  const refusal = refuse(said, family);
  if (refusal !== undefined) return { problem: refusal };
  const rope = readHfRope(config);
  if ('problem' in rope) return rope;
  const copied = MODEL_KEYS.filter((key) => said[key] !== undefined).map((key) => [key, said[key]]);
  const heads = said['num_attention_heads'];
  return {
    sizes: {
      tie_word_embeddings: false,
      pad_token_id: null,
      ...(heads === undefined ? {} : { num_key_value_heads: heads }),
      // transformers rounds down; where that matters, the weights' shapes tell.
      ...(heads === undefined ? {} : { head_dim: Math.floor(Number(said['hidden_size']) / Number(heads)) }),
      ...(Object.fromEntries(copied) as Record<string, unknown>),
      ...rope,
      family: family.name,
    },
  };
}

/** transformers' defaults; those of the heads' sizes only for a file that says how many heads there are. */
function defaultsOf({ hf }: Family, config: Json): Json {
  const { num_key_value_heads: kvHeads, head_dim: headDim, ...others } = hf.defaults;
  const sized = config['num_attention_heads'] !== undefined;
  return sized ? { ...others, num_key_value_heads: kvHeads, head_dim: headDim } : others;
}

/** A key that is null is as one that is not there, but where the family's default applies to absent keys only. */
function withoutNulls(config: Json): Json {
  const nullable = ['head_dim', 'num_key_value_heads'];
  return Object.fromEntries(
    Object.entries(config)
      .filter(([key, value]) => value !== null || nullable.includes(key))
      .map(([key, value]) => [key, value ?? undefined]),
  );
}

/** transformers goes by `model_type`; a file that names an architecture must name that of the same family. */
function familyIn(config: Json): Family | undefined {
  const [architecture] = architecturesOf(config);
  const type = config['model_type'];
  return FAMILIES.find((family) => {
    if (type !== undefined && type !== family.name) return false;
    return architecture === undefined ? type === family.name : architecture === family.architecture;
  });
}

function architecturesOf(config: Json): unknown[] {
  return Array.isArray(config['architectures']) ? config['architectures'] : [];
}

/** Keys that say nothing of what is computed, or that mean the same in every decoder. */
const COMMON = new Set<string>([
  ...MODEL_KEYS,
  ...FAMILIES.flatMap(({ hf }) => [...hf.rules.map(({ key }) => key), ...Object.keys(hf.written)]),
  ...['architectures', 'model_type', 'dtype', 'torch_dtype', 'transformers_version', 'use_cache', 'auto_map'],
  ...['bos_token_id', 'eos_token_id', 'sep_token_id', 'rope_parameters', 'layer_types', 'sliding_window'],
  ...['max_window_layers', 'use_sliding_window', 'pretraining_tp', '_name_or_path', 'output_attentions'],
  ...['output_hidden_states', 'return_dict', 'is_encoder_decoder', 'chunk_size_feed_forward', 'id2label', 'label2id'],
  ...['problem_type'],
]);

function unknownFamily(config: Json): string {
  const named = [architecturesOf(config)[0], config['model_type']].filter((name) => name !== undefined).map(String);
  const built = FAMILIES.map(({ architecture, title }) => `${architecture} (${title})`).join('; ');
  const other = Object.keys(config).filter((key) => !COMMON.has(key));
  const more = other.length > 6 ? ', ...' : '';
  const different = other.length === 0 ? '' : `. None of these knows its ${other.slice(0, 6).join(', ')}${more}`;
  return `holds ${named.join(' of model_type ') || 'no architecture'}, which is not built. Built are ${built}${different}`;
}

/** What of `said` we do not compute, or undefined. */
function refuse(said: Json, family: Family): string | undefined {
  const quantised = ['quantization_config', 'compression_config'].find((key) => said[key] !== undefined);
  if (quantised !== undefined) {
    const { quant_method: method } = said[quantised] as Json;
    const how = typeof method === 'string' ? ` (${method})` : '';
    return `has a ${quantised}${how}; quantised weights are not supported, take the folder of the model in bf16`;
  }
  const broken = family.hf.rules.find(({ key, plain }) => said[key] !== undefined && !plain.includes(said[key]));
  if (broken !== undefined) return `${broken.key} is ${said[broken.key]}; ${broken.why}`;
  return family.hf.slidingWindow ? refuseWindow(said) : undefined;
}

function refuseWindow(said: Json): string | undefined {
  const layers = Number(said['num_hidden_layers']);
  const types = Array.isArray(said['layer_types']) ? (said['layer_types'] as unknown[]) : undefined;
  if (types !== undefined && Number.isFinite(layers) && types.length !== layers) {
    return `layer_types names ${types.length} layers, num_hidden_layers is ${layers}`;
  }
  const from = Number(said['max_window_layers'] ?? 28);
  const sliding =
    types === undefined
      ? said['use_sliding_window'] === true && from < layers
      : types.some((t) => t !== 'full_attention');
  return sliding ? 'uses sliding-window attention; only full attention is built' : undefined;
}

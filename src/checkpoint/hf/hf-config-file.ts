import type { ModelConfig } from '../../config/schema.js';
import type { SafetensorsDtype } from '../files/safetensors-header.js';
import { MODEL_KEYS } from '../format/state-record.js';

export type HfDtype = 'bf16' | 'fp32';

const TORCH_NAMES: Partial<Record<SafetensorsDtype, string>> = { BF16: 'bfloat16', F32: 'float32', F16: 'float16' };

/**
 * The config.json of an exported model: the given one, byte for byte where it says the same, else with the model's own
 * sizes and dtype put in; a new one where none is given.
 */
export function hfConfig(
  given: Uint8Array | undefined,
  sizes: Partial<ModelConfig>,
  dtypes: ReadonlySet<SafetensorsDtype>,
): Uint8Array {
  const [only] = dtypes.size === 1 ? dtypes : [];
  const torchDtype = only === undefined ? undefined : TORCH_NAMES[only];
  const base = given === undefined ? newConfig(sizes) : (JSON.parse(Buffer.from(given).toString()) as Json);
  const changes = sizeChanges(base, sizes);
  if (torchDtype !== undefined) {
    const keys = ['dtype', 'torch_dtype'].filter((key) => key in base);
    for (const key of keys.length === 0 ? ['torch_dtype'] : keys) {
      if (base[key] !== torchDtype) changes[key] = torchDtype;
    }
  }
  if (given !== undefined && Object.keys(changes).length === 0) return given;
  return Buffer.from(`${JSON.stringify({ ...base, ...changes }, null, 2)}\n`);
}

type Json = Record<string, unknown>;

function sizeChanges(base: Json, sizes: Partial<ModelConfig>): Json {
  const changes: Json = {};
  for (const key of MODEL_KEYS) {
    if (sizes[key] === undefined || key === 'rope_theta') continue;
    if (key === 'tie_word_embeddings' && !(key in base) && !sizes[key]) continue;
    if (base[key] !== sizes[key]) changes[key] = sizes[key];
  }
  const rope = base['rope_parameters'];
  const inside = typeof rope === 'object' && rope !== null ? (rope as Json) : undefined;
  const theta = sizes.rope_theta;
  if (theta === undefined) return changes;
  if (inside !== undefined && inside['rope_theta'] !== theta)
    changes['rope_parameters'] = { ...inside, rope_theta: theta };
  if ((inside === undefined || 'rope_theta' in base) && base['rope_theta'] !== theta) changes['rope_theta'] = theta;
  return changes;
}

function newConfig(sizes: Partial<ModelConfig>): Json {
  return {
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    attention_bias: false,
    attention_dropout: 0,
    hidden_act: 'silu',
    use_cache: true,
    use_sliding_window: false,
    ...sizes,
  };
}

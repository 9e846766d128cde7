import { hfChanges, newHfConfig } from '../../families/hf-write.js';
import type { ModelSettings } from '../../families/model-shape.js';
import type { SafetensorsDtype } from '../files/safetensors-header.js';

export type HfDtype = 'bf16' | 'fp32';

const TORCH_NAMES: Partial<Record<SafetensorsDtype, string>> = { BF16: 'bfloat16', F32: 'float32', F16: 'float16' };

/**
 * The config.json of an exported model: the given one, byte for byte where it says the same, else with the model's own
 * sizes and dtype put in; a new one where none is given.
 */
export function hfConfig(
  given: Uint8Array | undefined,
  model: ModelSettings,
  dtypes: ReadonlySet<SafetensorsDtype>,
): Uint8Array {
  const [only] = dtypes.size === 1 ? dtypes : [];
  const torchDtype = only === undefined ? undefined : TORCH_NAMES[only];
  const base = given === undefined ? newHfConfig(model) : (JSON.parse(Buffer.from(given).toString()) as Json);
  const changes: Json = { ...hfChanges(base, model) };
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

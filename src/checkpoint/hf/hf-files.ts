import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { readHfConfig } from '../../families/hf-config.js';
import { modelSchema } from '../../config/schema-model.js';
import type { ModelConfig } from '../../config/schema.js';
import { modelShape, type ModelShape } from '../../families/model-shape.js';

/** Files of a Hugging Face folder that belong to a model beside its weights: configuration and tokenizer. */
const KEPT = [
  /^(generation_|tokenizer_|preprocessor_)?config\.json$/,
  /^tokenizer\.(json|model)$/,
  /^(special_tokens_map|added_tokens|vocab|chat_template)\.json$/,
  /^merges\.txt$/,
  /^chat_template\.jinja$/,
  /^(LICENSE|NOTICE)(\.\w+)?$/,
];

/** Those files of a folder, by name; empty where there is no such folder. */
export async function readHfFiles(folder: string): Promise<Map<string, Uint8Array>> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch {
    return new Map();
  }
  const files = new Map<string, Uint8Array>();
  for (const name of names.sort()) {
    if (!KEPT.some((pattern) => pattern.test(name))) continue;
    try {
      files.set(name, await readFile(join(folder, name)));
    } catch (cause) {
      throw checkpointIoError('read', join(folder, name), cause);
    }
  }
  return files;
}

/**
 * The `model` section that a folder's config.json makes, everything else by default.
 * @throws MbridgeError exit 7 for a config.json that is missing, or of a model that is not built
 */
export function readHfModel(folder: string): ModelConfig {
  const config = readHfConfig(folder);
  const bad = (found: string): Error =>
    badCheckpoint('HF_CONFIG', join(folder, 'config.json'), found, 'give the folder of a model that is built');
  if ('problem' in config) throw bad(config.problem);
  const result = modelSchema.safeParse(withDefaults(config.sizes));
  if (result.success) return result.data;
  throw bad(result.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; '));
}

/** The `model` section that a checkpoint's sizes make. */
export function modelOfSizes(sizes: Readonly<Record<string, unknown>>, more: Partial<ModelConfig> = {}): ModelConfig {
  return modelSchema.parse({ ...withDefaults(sizes), ...more });
}

/** What a checkpoint's model is. */
export function shapeOfState(state: { readonly model: Readonly<Record<string, unknown>> }): ModelShape {
  return modelShape({ model: modelOfSizes(state.model) });
}

function withDefaults(sizes: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const heads = sizes['num_attention_heads'];
  return {
    num_key_value_heads: heads,
    head_dim: Number(sizes['hidden_size']) / Number(heads),
    sequence_parallel: false,
    ...sizes,
  };
}

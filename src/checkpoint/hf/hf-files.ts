import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { staysInside } from '../../base/own-file.js';
import { readFileBytes } from '../../base/regular-file.js';
import type { MbridgeError } from '../../base/errors.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { STATE_FILE } from '../format/checkpoint-format.js';
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

/** More than any of them has. */
const MOST_BYTES = 256 << 20;

/** A link of a folder that leads to a file elsewhere. */
export function leadsOut(path: string): MbridgeError {
  const hint = 'a folder from elsewhere may link to anything: copy the file here, or name the folder that holds it';
  return badCheckpoint('LINK', path, 'is a link that leads out of its folder', hint);
}

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
    if (!staysInside(folder, name)) throw leadsOut(join(folder, name));
    try {
      files.set(name, readFileBytes(join(folder, name), MOST_BYTES));
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

/**
 * The `model` section that a checkpoint's sizes make.
 * @throws MbridgeError exit 7 where they make none
 */
export function modelOfSizes(sizes: Readonly<Record<string, unknown>>, more: Partial<ModelConfig> = {}): ModelConfig {
  const result = modelSchema.safeParse({ ...withDefaults(sizes), ...more });
  if (result.success) return result.data;
  const found = result.error.issues.map(({ path, message }) => `model.${path.join('.')}: ${message}`).join('; ');
  throw badCheckpoint('MODEL', STATE_FILE, found, 'the checkpoint is damaged or of another version; use another one');
}

/** What a checkpoint's model is. */
export function shapeOfState(state: { readonly model: Readonly<Record<string, unknown>> }): ModelShape {
  return modelShape({ model: modelOfSizes(state.model) });
}

function withDefaults(sizes: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { hidden_size: hidden, num_attention_heads: heads } = sizes;
  return {
    num_key_value_heads: heads,
    ...(typeof hidden === 'number' && typeof heads === 'number' ? { head_dim: hidden / heads } : {}),
    sequence_parallel: false,
    ...sizes,
  };
}

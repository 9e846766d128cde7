import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Adapters } from '../../families/adapters.js';
import { ADAPTER_CONFIG, readPeftConfig } from '../../families/peft-config.js';
import type { ConfigInput, RunConfig } from '../../config/schema.js';
import { Checkpoint } from '../format/checkpoint.js';
import { findCheckpoint } from '../format/checkpoint-root.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { modelOfSizes, readHfModel } from '../hf/hf-files.js';

/** A longer one is asked for by model.seq_length. */
const LONGEST = 4096;

/**
 * What a configuration says of the model in a folder: its sizes, its weights, its tokenizer, and the length it was
 * trained on.
 * @param path a checkpoint, a folder of checkpoints (then the one that `latest` names), a Hugging Face folder, or one of an
 * adapter, as peft saves it
 * @throws MbridgeError exit 7 for a folder that is none of them, or is damaged
 */
export async function configOfModel(path: string): Promise<ModelOfFolder> {
  if (existsSync(join(path, ADAPTER_CONFIG))) return configOfAdapter(path);
  if (existsSync(join(path, 'config.json'))) {
    const { max_position_embeddings: longest } = readHfModel(path);
    const own = existsSync(join(path, 'tokenizer.json'));
    return {
      model: { hf_path: path, seq_length: Math.min(longest, LONGEST) },
      checkpoint: { pretrained_checkpoint: path },
      ...(own ? { tokenizer: { type: 'huggingface', path } } : {}),
    };
  }
  const { folder } = await findCheckpoint(path);
  if (folder === null) {
    const found = existsSync(path) ? 'holds no checkpoint, and no config.json' : 'does not exist';
    throw badCheckpoint('NONE', path, found, 'name a checkpoint, a folder of checkpoints, or a Hugging Face folder');
  }
  const { state } = await Checkpoint.open(folder);
  const { max_position_embeddings: longest } = modelOfSizes(state.model);
  const { config, adapters } = state;
  return {
    model: { ...state.model, seq_length: config?.model.seq_length ?? Math.min(longest, LONGEST) },
    checkpoint: { pretrained_checkpoint: folder },
    ...(config === null ? {} : { tokenizer: config.tokenizer }),
    ...(adapters === undefined ? {} : { peft: peftSection(adapters) }),
  };
}

type ModelOfFolder = Pick<ConfigInput, 'model' | 'tokenizer' | 'checkpoint' | 'peft'>;

/** Of a folder that peft saved: its base model, by a path or one beside it. */
async function configOfAdapter(path: string): Promise<ModelOfFolder> {
  const found = readPeftConfig(path);
  const bad = (text: string): Error =>
    badCheckpoint('ADAPTER', path, text, 'name the model in its place, and the folder by peft.adapter');
  if ('problem' in found) throw bad(found.problem);
  const { base } = found;
  const folder = base === null ? undefined : [base, resolve(path, base), resolve(path, '..', base)].find(existsSync);
  if (folder === undefined) throw bad(`its model, ${base ?? 'which it does not name'}, is not on this machine`);
  return { ...(await configOfModel(folder)), peft: { ...peftSection(found.adapters), adapter: resolve(path) } };
}

function peftSection({ rank, alpha, modules }: Adapters): Extract<RunConfig['peft'], { type: 'lora' }> {
  return { type: 'lora', dim: rank, alpha, target_modules: [...modules], dropout: 0, adapter: null };
}

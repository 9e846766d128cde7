import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ConfigInput } from '../../config/schema.js';
import { Checkpoint } from '../format/checkpoint.js';
import { findCheckpoint } from '../format/checkpoint-root.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { modelOfSizes, readHfModel } from '../hf/hf-files.js';

/** A longer one is asked for by model.seq_length. */
const LONGEST = 4096;

/**
 * What a configuration says of the model in a folder: its sizes, its weights, its tokenizer, and the length it was
 * trained on.
 * @param path a checkpoint, a folder of checkpoints (then the one that `latest` names), or a Hugging Face folder
 * @throws MbridgeError exit 7 for a folder that is none of them, or is damaged
 */
export async function configOfModel(path: string): Promise<Pick<ConfigInput, 'model' | 'tokenizer' | 'checkpoint'>> {
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
  const { config } = state;
  return {
    model: { ...state.model, seq_length: config?.model.seq_length ?? Math.min(longest, LONGEST) },
    checkpoint: { pretrained_checkpoint: folder },
    ...(config === null ? {} : { tokenizer: config.tokenizer }),
  };
}

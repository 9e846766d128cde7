import { randomBytes } from 'node:crypto';
import { modelSettings, modelShape } from '../../families/model-shape.js';
import { groupBySize } from '../../base/group-by-size.js';
import { packageVersion } from '../../base/package-root.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { FORMAT, HF_SUBFOLDER, isOptimizerTensor, VERSION, type CheckpointState } from '../format/checkpoint-format.js';
import { readHfFiles, readHfModel } from '../hf/hf-files.js';
import { HfFolder } from '../hf/hf-folder.js';
import { modelParameters } from '../../families/parameters.js';
import { saveOffline } from './offline-save.js';
import { wholeOf } from '../../model/parameters/rectangle.js';
import { elementCount } from '../../base/element-count.js';
import { DTYPE_BYTES } from '../files/safetensors-header.js';
import { shardFileName } from '../format/save-plan.js';
import { layOutShard, type ShardLayout, type StoredPiece } from '../format/shard-layout.js';

const CHUNK_BYTES = 16 << 20;
/** Rows of embedding and head that are compared at once. */
const ROWS = 1024;
/** Size from which on another shard is begun. */
const SHARD_BYTES = 4e9;

/**
 * Makes a checkpoint of step 0 out of a Hugging Face folder: every tensor as it is, byte for byte, with the tokenizer's
 * files. Reads and writes a few MiB at a time. Returns the checkpoint's folder.
 * @throws MbridgeError exit 7 for a folder that is incomplete, damaged, or of a model that is not built, and for a
 * target with checkpoints
 */
export async function importHf(hfFolder: string, root: string): Promise<string> {
  const model = readHfModel(hfFolder);
  const hf = await HfFolder.open(hfFolder);
  try {
    const parameters = modelParameters(modelShape({ model }));
    hf.check(parameters);
    if (model.tie_word_embeddings) {
      for (let row = 0; row < model.vocab_size; row += ROWS) {
        await hf.requireTied({ rowStart: row, rowEnd: Math.min(row + ROWS, model.vocab_size) });
      }
    }
    const known = new Set(parameters.map(({ name }) => name));
    // Such as the head of a tied model, which some folders hold as well.
    const others = hf.names().filter((name) => !known.has(name));
    const stray = others.find(isOptimizerTensor);
    if (stray !== undefined) throw badCheckpoint('NAME', hfFolder, `a tensor is named ${stray}`, 'rename it');
    const pieces = [...known, ...others.sort()].map((tensor): StoredPiece => {
      const { dtype, shape } = hf.tensor(tensor);
      return { tensor, dtype, shape, area: wholeOf(shape) };
    });
    const files = new Map(
      [...(await readHfFiles(hfFolder))].map(([name, bytes]) => [`${HF_SUBFOLDER}/${name}`, bytes]),
    );
    const state: CheckpointState = {
      format: FORMAT,
      version: VERSION,
      step: 0,
      consumed_samples: 0,
      model: modelSettings(model),
      precision: null,
      optimizer: null,
      rng: null,
      layout: null,
      versions: { mbridge: packageVersion() },
      config: null,
      lineage: randomBytes(16).toString('hex'),
    };
    const bytesOf = async function* ({ tensor }: StoredPiece): AsyncGenerator<Uint8Array> {
      const { bytes } = hf.tensor(tensor);
      for (let at = 0; at < bytes; at += CHUNK_BYTES) {
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, bytes - at));
        await hf.readInto(tensor, chunk, at);
        yield chunk;
      }
    };
    return await saveOffline({ root, state, shards: shardsOf(pieces), bytesOf, files });
  } finally {
    await hf.close();
  }
}

function shardsOf(pieces: readonly StoredPiece[]): ShardLayout[] {
  const groups = groupBySize(pieces, ({ dtype, shape }) => elementCount(shape) * DTYPE_BYTES[dtype], SHARD_BYTES);
  return groups.map((group, i) => layOutShard(shardFileName('weights', i), group));
}

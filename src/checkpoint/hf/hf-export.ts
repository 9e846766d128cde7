import { join } from 'node:path';
import { isAdapterParameter } from '../../families/adapters.js';
import { modelShape } from '../../families/model-shape.js';
import { MbridgeError } from '../../base/errors.js';
import { elementCount } from '../../base/element-count.js';
import { groupBySize } from '../../base/group-by-size.js';
import type { Checkpoint } from '../format/checkpoint.js';
import { HF_SUBFOLDER, isOptimizerTensor } from '../format/checkpoint-format.js';
import { writeDurably, writeJsonDurably } from '../files/durable-files.js';
import { hfConfig, type HfDtype } from './hf-config-file.js';
import { modelOfSizes, readHfFiles } from './hf-files.js';
import { MergedWeights } from './merged-weights.js';
import { writeNewFolder } from './new-folder.js';
import { modelParameters } from '../../families/parameters.js';
import { float32ToBfloat16, isFloatDtype, toFloat32 } from '../files/safetensors-convert.js';
import { DTYPE_BYTES, layOut, type SafetensorsDtype, type TensorSpec } from '../files/safetensors-header.js';

/** Hugging Face cuts at 5 GB. */
const DEFAULT_SHARD_BYTES = 5e9;

export interface ExportOptions {
  /** What float tensors become; by default bf16 for a run in bf16_mixed or fp8_mixed, else what is stored. */
  readonly dtype?: HfDtype | undefined;
  /** Folder to take config.json and the tokenizer from, where the checkpoint and its configuration know none. */
  readonly hfPath?: string | undefined;
  /** Folder to take the tokenizer from, whatever came with the model. */
  readonly tokenizerPath?: string | undefined;
  readonly shardBytes?: number;
}

export interface Exported {
  readonly tensors: number;
  readonly bytes: number;
  readonly files: readonly string[];
  /** Where config.json and the tokenizer came from; null where config.json was made from the model's sizes. */
  readonly companions: string | null;
}

/**
 * Writes a checkpoint's weights as a Hugging Face folder, tensor by tensor, a few MiB at a time: with adapters, those of the
 * model that they make together. A tied head is left out, as Hugging Face does.
 * @throws MbridgeError exit 7 for a damaged checkpoint, or a target that is not empty
 */
export function exportHf(checkpoint: Checkpoint, target: string, options: ExportOptions = {}): Promise<Exported> {
  return writeNewFolder(target, (folder) => writeInto(folder, checkpoint, options));
}

async function writeInto(folder: string, checkpoint: Checkpoint, options: ExportOptions): Promise<Exported> {
  const { shardBytes = DEFAULT_SHARD_BYTES } = options;
  const dtype = options.dtype ?? (checkpoint.state.precision?.endsWith('_mixed') ? 'bf16' : undefined);
  const source = checkpoint.adapters === null ? checkpoint : new MergedWeights(checkpoint, checkpoint.adapters);
  const specs = weightNames(checkpoint).map((name): TensorSpec => {
    const { dtype: stored, shape } = source.tensor(name);
    return { name, dtype: isFloatDtype(stored) && dtype !== undefined ? STORED[dtype] : stored, shape };
  });
  const groups = groupBySize(specs, ({ dtype: d, shape }) => elementCount(shape) * DTYPE_BYTES[d], shardBytes);
  const fiveDigits = (n: number): string => String(n).padStart(5, '0');
  const nameOf = (i: number): string =>
    groups.length === 1
      ? 'model.safetensors'
      : `model-${fiveDigits(i + 1)}-of-${fiveDigits(groups.length)}.safetensors`;
  const weightMap: Record<string, string> = {};
  let bytes = 0;
  for (const [i, group] of groups.entries()) {
    // transformers refuses files that do not say for which framework they are.
    const { head, header } = layOut(group, { format: 'pt' });
    await writeDurably(join(folder, nameOf(i)), shardBytesOf(source, head, header.tensors));
    for (const { name } of group) weightMap[name] = nameOf(i);
    bytes += header.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  }
  if (groups.length > 1) {
    const sorted = Object.fromEntries(Object.entries(weightMap).sort(([a], [b]) => (a < b ? -1 : 1)));
    await writeJsonDurably(join(folder, 'model.safetensors.index.json'), {
      metadata: { total_size: bytes },
      weight_map: sorted,
    });
  }
  const { files, from } = await companionFiles(checkpoint, options.hfPath);
  if (options.tokenizerPath !== undefined) await takeTokenizer(files, options.tokenizerPath);
  const kinds = new Set(specs.map((spec) => spec.dtype));
  files.set('config.json', hfConfig(files.get('config.json'), modelOfSizes(checkpoint.state.model), kinds));
  for (const [name, content] of files) await writeDurably(join(folder, name), [content]);
  return {
    tensors: specs.length,
    bytes,
    files: [...groups.map((_, i) => nameOf(i)), ...files.keys()],
    companions: from,
  };
}

const STORED: Record<HfDtype, SafetensorsDtype> = { bf16: 'BF16', fp32: 'F32' };

/** In the model's order, then whatever else was imported. */
function weightNames(checkpoint: Checkpoint): string[] {
  const shape = modelShape({ model: modelOfSizes(checkpoint.state.model) });
  checkpoint.check(shape, ['language']);
  const names = modelParameters(shape).map(({ name }) => name);
  const known = new Set(names);
  const others = Object.keys(checkpoint.index.tensors).filter(
    (name) => !known.has(name) && !isOptimizerTensor(name) && !isAdapterParameter(name),
  );
  return [...names, ...others];
}

async function* shardBytesOf(
  source: Pick<Checkpoint, 'tensor' | 'bytesOf'>,
  head: Uint8Array,
  tensors: readonly TensorSpec[],
): AsyncGenerator<Uint8Array> {
  yield head;
  for (const { name, dtype } of tensors) {
    const stored = source.tensor(name).dtype;
    for await (const bytes of source.bytesOf(name)) yield stored === dtype ? bytes : convert(bytes, stored, dtype);
  }
}

function convert(bytes: Uint8Array, from: SafetensorsDtype, to: SafetensorsDtype): Uint8Array {
  if (!isFloatDtype(from)) throw new Error(`${from} is no float`);
  const floats = new Float32Array(bytes.length / DTYPE_BYTES[from]);
  toFloat32(from, bytes, floats);
  if (to === 'F32') return new Uint8Array(floats.buffer);
  const halves = new Uint16Array(floats.length);
  float32ToBfloat16(floats, halves);
  return new Uint8Array(halves.buffer);
}

/** config.json, tokenizer: from the checkpoint itself, or from the folders that its configuration names. */
async function companionFiles(
  checkpoint: Checkpoint,
  hfPath: string | undefined,
): Promise<{ files: Map<string, Uint8Array>; from: string | null }> {
  const config = checkpoint.state.config;
  const places = [
    hfPath,
    join(checkpoint.folder, HF_SUBFOLDER),
    config?.model.hf_path,
    config?.checkpoint.pretrained_checkpoint,
    config?.checkpoint.pretrained_checkpoint && join(config.checkpoint.pretrained_checkpoint, HF_SUBFOLDER),
  ];
  for (const place of places) {
    if (place === undefined || place === null || place === '') continue;
    const files = await readHfFiles(place);
    if (files.has('config.json')) return { files, from: place };
    if (place === hfPath) {
      throw new MbridgeError('io', 'MB_CHECKPOINT_HF_PATH', `${place} has no config.json`, {
        hint: 'name the Hugging Face folder that the model came from, or leave it out',
      });
    }
  }
  return { files: new Map(), from: null };
}

/** Files of a folder that are its model's own. */
const OF_MODEL = /^(config|generation_config|preprocessor_config)\.json$|^(LICENSE|NOTICE)/;

/** Puts a folder's tokenizer in place of the one that is there: a template of the other would be taken for its own. */
async function takeTokenizer(files: Map<string, Uint8Array>, folder: string): Promise<void> {
  const own = await readHfFiles(folder);
  for (const name of [...files.keys()]) if (!OF_MODEL.test(name)) files.delete(name);
  for (const [name, content] of own) {
    if (!OF_MODEL.test(name)) files.set(name, content);
    else if (name === 'generation_config.json' && !files.has(name)) files.set(name, content);
  }
}

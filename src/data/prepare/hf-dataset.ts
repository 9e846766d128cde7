import { existsSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { findInputs, type InputFile, type Inputs } from './input-files.js';

/**
 * The tables of a dataset's folder, of one split: the Parquet files that the Hugging Face Hub has, or the Arrow files of
 * `save_to_disk` and of the cache of `load_dataset`.
 * @param split default: the only one, or `train`
 * @throws MbridgeError MB_DATA_INPUT (exit 7) where there are none
 */
export async function datasetInputs(folder: string, output: string, split?: string): Promise<Inputs> {
  const refuse = (found: string, hint: string): MbridgeError => {
    return new MbridgeError('io', 'MB_DATA_INPUT', `${folder}: ${found}`, { hint, details: { folder } });
  };
  if (!existsSync(folder)) throw refuse('no such folder', 'name the folder of a dataset that has been downloaded');
  const parquet = await tablesIn(folder, 'parquet', output);
  const { files, others } = parquet.files.length > 0 ? parquet : await tablesIn(folder, 'arrow', output);
  if (files.length === 0) {
    throw refuse('has no Parquet and no Arrow file', 'texts of other kinds: mbridge data prepare --input FOLDER');
  }
  const splits = new Map<string, InputFile[]>();
  for (const file of files) {
    const name = splitOf(relative(folder, file.path));
    splits.set(name, [...(splits.get(name) ?? []), file]);
  }
  const names = [...splits.keys()];
  const chosen = split ?? (names.length === 1 ? names[0] : 'train');
  const found = splits.get(chosen as string);
  if (found === undefined) throw refuse(`has no split ${chosen}`, `name one with --split: ${names.join(', ')}`);
  return { files: found, others };
}

async function tablesIn(folder: string, ending: 'parquet' | 'arrow', output: string): Promise<Inputs> {
  try {
    const { files, others } = await findInputs([join(folder, `**/*.${ending}`)], output);
    // What `map` and `filter` left in the cache is no part of the dataset.
    return { files: files.filter(({ path }) => !basename(path).startsWith('cache-')), others };
  } catch (cause) {
    if (cause instanceof MbridgeError && cause.code === 'MB_DATA_INPUT') return { files: [], others: [] };
    throw cause;
  }
}

/**
 * `data/train-00000-of-00012.parquet`, `train/0000.parquet` and `train/data-00000-of-00002.arrow` are of `train`, and so
 * are `squad-train.arrow` and, of a dataset without splits, `data-00000-of-00001.arrow`.
 */
function splitOf(path: string): string {
  const parent = basename(dirname(path));
  const shard = /^(.+?)-\d+-of-\d+/.exec(basename(path))?.[1];
  if (path.endsWith('.arrow')) {
    const name = shard ?? basename(path, '.arrow');
    if (name === 'data') return parent === '.' ? 'train' : parent;
    return name.slice(name.lastIndexOf('-') + 1);
  }
  return shard ?? (['.', 'data'].includes(parent) ? basename(path, '.parquet') : parent);
}

import { existsSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { findInputs, type InputFile, type Inputs } from './input-files.js';

/**
 * The Parquet files of a dataset's folder as the Hugging Face Hub has it, of one split.
 * @param split default: the only one, or `train`
 * @throws MbridgeError MB_DATA_INPUT (exit 7) where there are none
 */
export async function datasetInputs(folder: string, output: string, split?: string): Promise<Inputs> {
  const refuse = (found: string, hint: string): MbridgeError => {
    return new MbridgeError('io', 'MB_DATA_INPUT', `${folder}: ${found}`, { hint, details: { folder } });
  };
  if (!existsSync(folder)) throw refuse('no such folder', 'name the folder of a dataset that has been downloaded');
  const { files, others } = await findInputs([join(folder, '**/*.parquet')], output).catch((cause: unknown) => {
    if (cause instanceof MbridgeError && cause.code === 'MB_DATA_INPUT') return { files: [], others: [] };
    throw cause;
  });
  if (files.length === 0) {
    const arrow = existsSync(join(folder, 'dataset_info.json')) || existsSync(join(folder, 'dataset_dict.json'));
    throw refuse(
      arrow ? 'is a dataset in Arrow files, which are not read' : 'has no Parquet file',
      arrow
        ? 'write it as Parquet: datasets.load_from_disk(FOLDER)["train"].to_parquet("FILE.parquet")'
        : 'texts of other kinds: mbridge data prepare --input FOLDER',
    );
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

/** `data/train-00000-of-00012.parquet` and `train/0000.parquet` are of `train`. */
function splitOf(path: string): string {
  const shard = /^(.+?)-\d+-of-\d+/.exec(basename(path))?.[1];
  const parent = basename(dirname(path));
  return shard ?? (['.', 'data'].includes(parent) ? basename(path, '.parquet') : parent);
}

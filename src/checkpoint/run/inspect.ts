import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Checkpoint } from '../format/checkpoint.js';
import { COMMIT_FILE, TENSOR_KINDS, isOptimizerTensor, type CheckpointState } from '../format/checkpoint-format.js';
import { exists, listRoot, requireCheckpoint } from '../format/checkpoint-root.js';
import { DTYPE_BYTES } from '../files/safetensors-header.js';
import { elementCount } from '../../base/element-count.js';

/** What a checkpoint holds, in numbers. */
export interface CheckpointSummary {
  readonly folder: string;
  readonly state: CheckpointState;
  readonly parameters: number;
  readonly tensors: number;
  readonly files: number;
  readonly bytes: number;
  /** Of these, those of the optimizer's moments. */
  readonly optimizer_bytes: number;
  /** Types of the tensors of each kind. */
  readonly dtypes: Readonly<Record<string, readonly string[]>>;
  /** ISO 8601, when it was committed, by the file system. */
  readonly saved: string;
  /** By name; only if asked for. */
  readonly list?: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
    readonly pieces: number;
  }[];
}

/** What is in a folder of checkpoints. */
export interface RootSummary {
  readonly folder: string;
  readonly latest: string | null;
  readonly checkpoints: readonly {
    readonly name: string;
    readonly step: number;
    readonly bytes: number;
    readonly saved: string;
  }[];
  readonly unfinished: readonly string[];
}

/** @throws MbridgeError exit 7 where there is no checkpoint, or its index or state is damaged */
export async function inspect(path: string, list: boolean): Promise<CheckpointSummary | RootSummary> {
  const listing = (await exists(join(path, COMMIT_FILE))) ? null : await listRoot(path);
  if (listing !== null && listing.checkpoints.length + listing.unfinished.length > 0) {
    const checkpoints = [];
    for (const { name, step } of listing.checkpoints) {
      checkpoints.push({ name, step, ...(await commitOf(await Checkpoint.open(join(path, name)))) });
    }
    return { folder: path, latest: listing.latest, checkpoints, unfinished: listing.unfinished };
  }
  const checkpoint = await Checkpoint.open(await requireCheckpoint(path, () => undefined));
  const tensors = Object.entries(checkpoint.index.tensors);
  const weights = tensors.filter(([name]) => !isOptimizerTensor(name));
  const entries = tensors.map(([name, { dtype, shape, pieces }]) => ({ name, dtype, shape, pieces: pieces.length }));
  return {
    folder: checkpoint.folder,
    state: checkpoint.state,
    parameters: weights.reduce((sum, [, { shape }]) => sum + elementCount(shape), 0),
    tensors: tensors.length,
    files: Object.keys(checkpoint.commit.files).length + 1,
    optimizer_bytes: tensors
      .filter(([name]) => isOptimizerTensor(name))
      .reduce((sum, [, { shape, dtype }]) => sum + elementCount(shape) * DTYPE_BYTES[dtype], 0),
    dtypes: dtypesOf(tensors.map(([name, { dtype }]) => ({ name, dtype }))),
    ...(await commitOf(checkpoint)),
    ...(list ? { list: entries } : {}),
  };
}

/** Of the kinds of tensors that there are. */
function dtypesOf(tensors: readonly { name: string; dtype: string }[]): Record<string, string[]> {
  const kinds = TENSOR_KINDS.map((kind) => {
    const own = tensors.filter(({ name }) =>
      kind === 'weight' ? !isOptimizerTensor(name) : name.startsWith(`${kind}.`),
    );
    return [kind, [...new Set(own.map(({ dtype }) => dtype))].sort()] as const;
  });
  return Object.fromEntries(kinds.filter(([, dtypes]) => dtypes.length > 0));
}

/** Bytes of all its files, the commit among them, and when that was written. */
async function commitOf({ folder, commit }: Checkpoint): Promise<{ bytes: number; saved: string }> {
  const { size, mtime } = await stat(join(folder, COMMIT_FILE));
  const bytes = Object.values(commit.files).reduce((sum, file) => sum + file.bytes, size);
  return { bytes, saved: mtime.toISOString() };
}

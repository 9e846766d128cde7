import type { FileRecord } from '../files/file-record.js';
import { readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOCK_BYTES, recordChecksum } from '../files/block-checksums.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { checkIndex } from './checkpoint-files.js';
import {
  COMMIT_FILE,
  FORMAT,
  HF_SUBFOLDER,
  INDEX_FILE,
  replacedFolderName,
  STATE_FILE,
  VERSION,
  type CheckpointIndex,
  type CheckpointState,
  type CommitRecord,
  type PieceRecord,
  type TensorRecord,
} from './checkpoint-format.js';
import { exists, removeFolder, setLatest } from './checkpoint-root.js';
import { syncFolder, writeJsonDurably } from '../files/durable-files.js';

/** What one writer put into a checkpoint: its files, and the pieces of tensors in them. */
export interface Contribution {
  readonly files: Readonly<Record<string, FileRecord>>;
  readonly tensors: Readonly<Record<string, TensorRecord>>;
}

/**
 * Writes index, state and, last, the commit record into `folder`, whose shards are written and synced.
 * @throws MbridgeError exit 7 if the contributions do not make up every tensor exactly once
 */
export async function sealFolder(
  folder: string,
  contributions: readonly Contribution[],
  state: CheckpointState,
): Promise<void> {
  const files: Record<string, FileRecord> = {};
  for (const contribution of contributions) Object.assign(files, contribution.files);
  for (const [name, { bytes }] of Object.entries(files)) await requireSize(join(folder, name), bytes);
  const index = mergeIndex(contributions);
  checkIndex(join(folder, INDEX_FILE), index, { files });
  files[INDEX_FILE] = await writeJsonDurably(join(folder, INDEX_FILE), index);
  files[STATE_FILE] = await writeJsonDurably(join(folder, STATE_FILE), state);
  const sorted = Object.fromEntries(Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1)));
  const commit: CommitRecord = {
    format: FORMAT,
    version: VERSION,
    block_bytes: BLOCK_BYTES,
    files: sorted,
    files_crc32: recordChecksum(sorted),
  };
  if (Object.keys(files).some((name) => name.startsWith(`${HF_SUBFOLDER}/`))) await sync(join(folder, HF_SUBFOLDER));
  await sync(folder);
  await writeJsonDurably(join(folder, COMMIT_FILE), commit);
  await sync(folder);
}

/**
 * Gives a sealed folder its final name, at once. A checkpoint of that name is replaced, unless it holds the same tensors:
 * then it stays. In between it stands aside under a name by which {@link listRoot} still counts it, so that there is a
 * checkpoint at every moment; if the new one cannot take its place, it goes back.
 */
export async function publishFolder(root: string, temporary: string, name: string): Promise<void> {
  const [from, to] = [join(root, temporary), join(root, name)];
  try {
    if (!(await exists(join(to, COMMIT_FILE)))) {
      if (await exists(to)) await removeFolder(root, name);
    } else {
      if (await sameTensors(from, to)) {
        await rm(from, { recursive: true });
        return;
      }
      const old = join(root, replacedFolderName(name));
      await rm(old, { recursive: true, force: true });
      await rename(to, old);
      try {
        await rename(from, to);
      } catch (cause) {
        await rename(old, to);
        throw cause;
      }
      await syncFolder(root);
      await rm(old, { recursive: true });
      return;
    }
    await rename(from, to);
    await syncFolder(root);
  } catch (cause) {
    throw checkpointIoError('write', to, cause);
  }
}

/** {@link publishFolder}, then moves the `latest` pointer. */
export async function publishLatest(root: string, temporary: string, name: string): Promise<void> {
  await publishFolder(root, temporary, name);
  await setLatest(root, name);
}

/** The last look before a checkpoint is one: on a shared file system, others' files must be here as well. */
async function requireSize(path: string, bytes: number): Promise<void> {
  let found: number;
  try {
    found = (await stat(path)).size;
  } catch (cause) {
    throw checkpointIoError('read', path, cause);
  }
  if (found !== bytes) throw badCheckpoint('SIZE', path, `has ${found} bytes, ${bytes} were written`, 'check the disk');
}

/** Equal tensors give equal indices, whatever the order of the writers. */
export function mergeIndex(contributions: readonly Contribution[]): CheckpointIndex {
  const tensors = new Map<string, TensorRecord>();
  for (const contribution of contributions) {
    for (const [name, record] of Object.entries(contribution.tensors)) {
      const known = tensors.get(name);
      tensors.set(name, known === undefined ? record : { ...known, pieces: [...known.pieces, ...record.pieces] });
    }
  }
  const names = [...tensors.keys()].sort();
  return {
    format: FORMAT,
    version: VERSION,
    tensors: Object.fromEntries(
      names.map((name) => {
        const record = tensors.get(name) as TensorRecord;
        return [name, { ...record, pieces: [...record.pieces].sort(byPlace) }];
      }),
    ),
  };
}

function byPlace(a: PieceRecord, b: PieceRecord): number {
  return a.rows[0] - b.rows[0] || a.cols[0] - b.cols[0];
}

async function sameTensors(a: string, b: string): Promise<boolean> {
  const [x, y] = await Promise.all([a, b].map((folder) => tensorFiles(folder)));
  return x !== undefined && x === y;
}

/** Checksums of all files but the state, whose configuration names paths. */
async function tensorFiles(folder: string): Promise<string | undefined> {
  try {
    const commit = JSON.parse(await readFile(join(folder, COMMIT_FILE), 'utf8')) as CommitRecord;
    return JSON.stringify(Object.entries(commit.files).filter(([name]) => name !== STATE_FILE));
  } catch {
    return undefined; // not a whole checkpoint: to be replaced
  }
}

async function sync(folder: string): Promise<void> {
  try {
    await syncFolder(folder);
  } catch (cause) {
    throw checkpointIoError('write', folder, cause);
  }
}

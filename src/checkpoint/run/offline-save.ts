import type { FileRecord } from '../files/file-record.js';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../../base/make-folder.js';
import { checkpointIoError } from '../files/checkpoint-error.js';
import { HF_SUBFOLDER, stepFolderName, TEMPORARY, type CheckpointState } from '../format/checkpoint-format.js';
import { prepareRoot } from '../format/checkpoint-root.js';
import { publishLatest, sealFolder } from '../format/commit.js';
import { writeDurably } from '../files/durable-files.js';
import { describeShards, type ShardLayout, type StoredPiece } from '../format/shard-layout.js';

export interface OfflineSave {
  readonly root: string;
  readonly state: CheckpointState;
  /** One at a time, so that a plan of many ranks need not be in memory. */
  readonly shards: Iterable<ShardLayout>;
  /** The stored bytes of a piece, in order; each yielded array is fresh memory. */
  readonly bytesOf: (piece: StoredPiece) => AsyncIterable<Uint8Array>;
  /** Other files of the checkpoint by name; written as they are. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}

/**
 * Writes a checkpoint from one process, streaming, with the same steps as a run: temporary folder, shards, index, state,
 * commit record, final name, `latest`. Returns its folder.
 */
export async function saveOffline({ root, state, shards, bytesOf, files }: OfflineSave): Promise<string> {
  const name = stepFolderName(state.step);
  const temporary = `${TEMPORARY}${name}-${process.pid}`;
  const folder = join(root, temporary);
  try {
    await prepareRoot(root, 0);
    await rm(folder, { recursive: true, force: true });
    makeFolder(folder);
    const written: ShardLayout[] = [];
    const records: FileRecord[] = [];
    for (const shard of shards) {
      records.push(await writeDurably(join(folder, shard.file), shardBytes(shard, bytesOf)));
      written.push(shard);
    }
    const others: Record<string, FileRecord> = {};
    for (const [file, bytes] of files ?? []) {
      if (file.startsWith(`${HF_SUBFOLDER}/`)) makeFolder(join(folder, HF_SUBFOLDER));
      others[file] = await writeDurably(join(folder, file), [bytes]);
    }
    await sealFolder(folder, [describeShards(written, records), { files: others, tensors: {} }], state);
    await publishLatest(root, temporary, name);
  } catch (cause) {
    await rm(folder, { recursive: true, force: true }).catch(() => undefined); // the first error says more
    throw checkpointIoError('write', folder, cause);
  }
  return join(root, name);
}

async function* shardBytes(shard: ShardLayout, bytesOf: OfflineSave['bytesOf']): AsyncGenerator<Uint8Array> {
  yield shard.head;
  for (const piece of shard.pieces) yield* bytesOf(piece);
}

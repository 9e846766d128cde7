import type { FileRecord } from '../files/file-record.js';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../../base/make-folder.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import {
  HF_SUBFOLDER,
  stepFolderName,
  temporaryFolderName,
  type CheckpointState,
} from '../format/checkpoint-format.js';
import { claimSaves, listRoot, restoreReplaced } from '../format/checkpoint-root.js';
import { publishFolder, publishLatest, sealFolder } from '../format/commit.js';
import { lineageOf, ofLineage, refuseForeignLatest } from '../format/lineage.js';
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
 * commit record, final name, and `latest` where no later step is there. Returns its folder.
 * @throws MbridgeError exit 7 where another process writes in `root`, or checkpoints of another lineage are there
 */
export async function saveOffline(save: OfflineSave): Promise<string> {
  const claim = claimSaves(save.root, 'name another target');
  try {
    return await saveClaimed(save);
  } finally {
    claim.release();
  }
}

async function saveClaimed({ root, state, shards, bytesOf, files }: OfflineSave): Promise<string> {
  const name = stepFolderName(state.step);
  const temporary = temporaryFolderName(state.step, randomBytes(6).toString('hex'));
  const folder = join(root, temporary);
  const discard = (): void => {
    rmSync(folder, { recursive: true, force: true });
  };
  process.on('exit', discard); // a signal ends the process in the middle
  try {
    await refuseForeignLatest(root);
    await restoreReplaced(root);
    const there = (await listRoot(root))?.checkpoints ?? [];
    const own = await ofLineage(root, there, lineageOf(state));
    const foreign = there.filter((checkpoint) => !own.includes(checkpoint)).map((checkpoint) => checkpoint.name);
    if (foreign.length > 0) {
      const text = `holds other checkpoints: ${foreign.join(', ')}`;
      throw badCheckpoint('FOREIGN', root, text, 'name a new folder, or remove them');
    }
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
    const isNewest = there.every(({ step }) => step <= state.step);
    await (isNewest ? publishLatest : publishFolder)(root, temporary, name);
  } catch (cause) {
    await rm(folder, { recursive: true, force: true }).catch(() => undefined); // the first error says more
    throw checkpointIoError('write', folder, cause);
  } finally {
    process.off('exit', discard);
  }
  return join(root, name);
}

async function* shardBytes(shard: ShardLayout, bytesOf: OfflineSave['bytesOf']): AsyncGenerator<Uint8Array> {
  yield shard.head;
  for (const piece of shard.pieces) yield* bytesOf(piece);
}

import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BlockChecksums } from './block-checksums.js';
import { checkpointIoError } from './checkpoint-error.js';
import type { FileRecord } from './file-record.js';

/** Writes that are under way at a time: the checksum of one block is made while others are written. */
const WRITES_AT_ONCE = 4;

/**
 * Writes a new file from pieces that come in order, forces it to the disk, and returns its size and checksums. A piece
 * must keep its bytes until the next but {@link WRITES_AT_ONCE} is asked for; each is at most 1 GiB.
 * @throws MbridgeError exit 7 naming the file; what was written of it stays
 */
export async function writeDurably(
  path: string,
  pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<FileRecord> {
  const sums = new BlockChecksums();
  const pending: Promise<void>[] = [];
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'wx');
    let position = 0;
    for await (const piece of pieces) {
      const write = writeFully(handle, piece, position);
      write.catch(() => undefined); // seen when it is awaited
      pending.push(write);
      position += piece.length;
      sums.add(piece);
      if (pending.length === WRITES_AT_ONCE) await pending.shift();
    }
    await Promise.all(pending);
    await handle.sync();
  } catch (cause) {
    await Promise.allSettled(pending);
    throw checkpointIoError('write', path, cause);
  } finally {
    await handle?.close();
  }
  return sums.finish();
}

/** As {@link writeDurably}, for a small file of JSON. Equal values give equal bytes. */
export function writeJsonDurably(path: string, value: unknown): Promise<FileRecord> {
  return writeDurably(path, [Buffer.from(`${JSON.stringify(value, null, 1)}\n`)]);
}

/** Replaces a small file at once and for good: a reader sees the old text or the new one. */
export async function replaceDurably(path: string, text: string, temporary: string): Promise<void> {
  try {
    await rm(temporary, { force: true });
    await writeDurably(temporary, [Buffer.from(text)]);
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    throw checkpointIoError('write', path, cause);
  }
}

/** Forces a folder's entries (new names, renames) to the disk. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

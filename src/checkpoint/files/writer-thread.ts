import { readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { errnoOf } from '../../base/system-error.js';
import { BLOCK_BYTES, BlockChecksums } from './block-checksums.js';
import type { FileRecord } from './file-record.js';
import { writeDurably } from './durable-files.js';

/** A file to be written from memory that this thread shares. */
export interface WriteJob {
  readonly id: number;
  readonly path: string;
  readonly chunks: readonly SharedArrayBuffer[];
}

/** A part of a descriptor's memory to be checksummed. */
export interface SumJob {
  readonly id: number;
  readonly fd: number;
  readonly position: number;
  readonly bytes: number;
}

/** An error does not keep its class between threads: its errno does. */
export type WriteReply =
  | { readonly id: number; readonly record: FileRecord }
  | { readonly id: number; readonly error: { readonly errno: string | undefined; readonly message: string } };

parentPort?.on('message', (job: WriteJob | SumJob) => {
  void run(job).then((reply) => parentPort?.postMessage(reply));
});

async function run(job: WriteJob | SumJob): Promise<WriteReply> {
  const { id } = job;
  try {
    return { id, record: 'fd' in job ? sum(job) : await writeDurably(job.path, blocksOf(job.chunks)) };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { id, error: { errno: errnoOf(cause), message: cause instanceof Error ? cause.message : String(cause) } };
  }
}

function sum({ fd, position, bytes }: SumJob): FileRecord {
  const sums = new BlockChecksums();
  const block = new Uint8Array(Math.min(BLOCK_BYTES, bytes));
  for (let at = 0; at < bytes;) {
    const got = readSync(fd, block, 0, Math.min(block.length, bytes - at), position + at);
    if (got === 0) throw new Error(`ends after ${at} of ${bytes} bytes`);
    sums.add(block.subarray(0, got));
    at += got;
  }
  return sums.finish();
}

function* blocksOf(chunks: readonly SharedArrayBuffer[]): Generator<Uint8Array> {
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.byteLength; at += BLOCK_BYTES) {
      yield new Uint8Array(chunk, at, Math.min(BLOCK_BYTES, chunk.byteLength - at));
    }
  }
}

import { parentPort } from 'node:worker_threads';
import { errnoOf } from '../../base/system-error.js';
import { BLOCK_BYTES } from './block-checksums.js';
import type { FileRecord } from './file-record.js';
import { writeDurably } from './durable-files.js';

/** A file to be written from memory that this thread shares. */
export interface WriteJob {
  readonly id: number;
  readonly path: string;
  readonly chunks: readonly SharedArrayBuffer[];
}

/** An error does not keep its class between threads: its errno does. */
export type WriteReply =
  | { readonly id: number; readonly record: FileRecord }
  | { readonly id: number; readonly error: { readonly errno: string | undefined; readonly message: string } };

parentPort?.on('message', (job: WriteJob) => {
  void run(job).then((reply) => parentPort?.postMessage(reply));
});

async function run({ id, path, chunks }: WriteJob): Promise<WriteReply> {
  try {
    return { id, record: await writeDurably(path, blocksOf(chunks)) };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { id, error: { errno: errnoOf(cause), message: cause instanceof Error ? cause.message : String(cause) } };
  }
}

function* blocksOf(chunks: readonly SharedArrayBuffer[]): Generator<Uint8Array> {
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.byteLength; at += BLOCK_BYTES) {
      yield new Uint8Array(chunk, at, Math.min(BLOCK_BYTES, chunk.byteLength - at));
    }
  }
}

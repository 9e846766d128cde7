import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';
import { openRegularFile } from '../../base/regular-file.js';
import { badData, unreadable } from '../data-error.js';

const CHUNK = 1 << 20;
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/**
 * The content of a file, unpacked where its first bytes say that it is gzip or Zstandard.
 * @param onRead called with the bytes that were read of the file itself
 * @throws MbridgeError MB_DATA_UNREADABLE, MB_DATA_COMPRESSED (exit 7)
 */
export async function* readBytes(path: string, onRead: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  const raw = rawBytes(path, onRead);
  const first = await raw.next();
  if (first.done === true) return;
  const all = prepend(first.value, raw);
  const [a, b] = first.value;
  if (a === 0x1f && b === 0x8b) yield* gunzip(path, all);
  else if (ZSTD.equals(first.value.subarray(0, 4))) yield* unzstd(path, all);
  else yield* all;
}

async function* rawBytes(path: string, onRead: (bytes: number) => void): AsyncGenerator<Buffer> {
  let fd: number;
  try {
    ({ fd } = openRegularFile(path));
  } catch (cause) {
    throw unreadable(path, cause, '--input');
  }
  try {
    for await (const chunk of createReadStream(path, { fd, highWaterMark: CHUNK })) {
      onRead((chunk as Buffer).length);
      yield chunk as Buffer;
    }
  } catch (cause) {
    throw unreadable(path, cause, '--input');
  }
}

async function* prepend<T>(first: T, rest: AsyncIterable<T>): AsyncGenerator<T> {
  yield first;
  yield* rest;
}

async function* gunzip(path: string, packed: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
  const stream = createGunzip({ chunkSize: CHUNK });
  let broken: unknown;
  const feeding = (async (): Promise<void> => {
    try {
      for await (const chunk of packed) {
        if (stream.destroyed) return;
        if (!stream.write(chunk)) await new Promise((resolve) => stream.once('drain', resolve).once('close', resolve));
      }
      stream.end();
    } catch (cause) {
      broken = cause;
      stream.destroy();
    }
  })();
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (cause) {
    throw broken ?? damaged(path, 'gzip', cause);
  } finally {
    stream.destroy();
    await feeding;
  }
}

async function* unzstd(path: string, packed: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
  const ready: Uint8Array[] = [];
  const stream = new Decompress((chunk) => ready.push(chunk));
  const push = (chunk: Uint8Array, last: boolean): Uint8Array[] => {
    try {
      stream.push(chunk, last);
    } catch (cause) {
      throw damaged(path, 'Zstandard', cause);
    }
    return ready.splice(0);
  };
  for await (const chunk of packed) yield* push(chunk, false);
  yield* push(new Uint8Array(0), true);
}

function damaged(path: string, format: string, cause: unknown): Error {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const hint = 'the file is cut or damaged: copy it again, or unpack it yourself and look';
  return badData('MB_DATA_COMPRESSED', path, `is no whole ${format} file: ${reason}`, hint);
}

import { createHash } from 'node:crypto';
import { closeSync, readSync } from 'node:fs';
import { openRegularFile } from '../base/regular-file.js';
import { badData, unreadable } from './data-error.js';
import type { FileFingerprint } from './dataset.js';
import { HEAD_BYTES, refuseForeign, type DataType } from './foreign-file.js';

/** A file up to this size is hashed whole; of a larger one as much, in blocks spread evenly from its first to its last byte. */
export const HASHED_BYTES = 64 << 20;
const HASHED_BLOCK = 1 << 20;

const CHUNK = 4 << 20;
const NEWLINE = 0x0a;

/** A data file opened for reads at any place: a regular file, and one of text where that is what is read. */
export class DataFile {
  readonly path: string;
  readonly bytes: number;
  /** Bytes of the byte-order mark that some editors write at the start of a file: 3 or 0. */
  readonly markBytes: number;
  readonly #fd: number;

  /**
   * @param type null for a file that is no text
   * @throws MbridgeError exit 7
   */
  constructor(path: string, type: DataType | null) {
    this.path = path;
    try {
      const { fd, bytes } = openRegularFile(path);
      [this.#fd, this.bytes] = [fd, bytes];
    } catch (cause) {
      throw unreadable(path, cause);
    }
    const head = Buffer.alloc(Math.min(HEAD_BYTES, this.bytes));
    closingOnError(this, () => {
      this.read(head, 0);
      if (type !== null) refuseForeign(path, head, type);
    });
    this.markBytes = head.subarray(0, 3).equals(Buffer.from([0xef, 0xbb, 0xbf])) ? 3 : 0;
  }

  /** Fills `dst` from byte `position`. Throws if the file ends before (it was cut since it was opened). */
  read(dst: Uint8Array, position: number): void {
    for (let done = 0; done < dst.length;) {
      const got = this.#readSome(dst.subarray(done), position + done);
      if (got === 0) {
        throw badData(
          'MB_DATA_CHANGED',
          this.path,
          `ends at byte ${position + done}, it had ${this.bytes} bytes when it was opened`,
          'do not change a data file while a run reads it',
        );
      }
      done += got;
    }
  }

  /** @param name as it was configured */
  fingerprint(name: string): FileFingerprint {
    const hash = createHash('sha256');
    const blocks = Math.min(HASHED_BYTES / HASHED_BLOCK, Math.ceil(this.bytes / HASHED_BLOCK));
    const sampled = this.bytes > HASHED_BYTES;
    const block = Buffer.alloc(Math.min(HASHED_BLOCK, this.bytes));
    for (let i = 0; i < blocks; i++) {
      const spread = Math.floor((i * (this.bytes - HASHED_BLOCK)) / (blocks - 1));
      const position = sampled ? spread : i * HASHED_BLOCK;
      const part = block.subarray(0, Math.min(block.length, this.bytes - position));
      this.read(part, position);
      hash.update(part);
    }
    return { path: name, bytes: this.bytes, sha256: hash.digest('hex') };
  }

  #readSome(dst: Uint8Array, position: number): number {
    try {
      return readSync(this.#fd, dst, 0, dst.length, position);
    } catch (cause) {
      throw unreadable(this.path, cause);
    }
  }

  /** Reads bytes from..to-1 in order, in chunks that live until the next one. */
  *chunks(from: number, to: number): Generator<{ readonly part: Buffer; readonly position: number }> {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(to - from, 1)));
    for (let position = from; position < to; position += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, to - position));
      this.read(part, position);
      yield { part, position };
    }
  }

  /** Line (from 1, as an editor shows it) of byte `at`, and that line's first byte. Slow: for errors only. */
  lineOf(at: number): { line: number; start: number } {
    let [line, start] = [1, 0];
    for (const { part, position } of this.chunks(0, at)) {
      for (let end = part.indexOf(NEWLINE); end >= 0; end = part.indexOf(NEWLINE, end + 1)) {
        line++;
        start = position + end + 1;
      }
    }
    return { line, start };
  }

  /** The error for a byte that no UTF-8 text has at this place. */
  notUtf8(at: number): Error {
    const { line, start } = this.lineOf(at);
    const byte = Buffer.alloc(1);
    this.read(byte, at);
    return badData(
      'MB_DATA_ENCODING',
      `${this.path}:${line}`,
      `not UTF-8 at byte ${at - start} of the line (0x${byte.toString('hex')}, byte ${at} of the file)`,
      'convert the file to UTF-8 (such as iconv -f ISO-8859-1 -t UTF-8 FILE > NEW), or mend this line',
      { byte: at },
    );
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** What `make` returns; when it throws, `resource` is closed first. */
export function closingOnError<T>(resource: { close(): void }, make: () => T): T {
  try {
    return make();
  } catch (error) {
    resource.close();
    throw error;
  }
}

import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { badData, unreadable } from './data-error.js';
import type { FileFingerprint } from './dataset.js';

/** A file up to this size is hashed whole; of a larger one as much, in blocks spread evenly from its first to its last byte. */
const HASHED_BYTES = 64 << 20;
const HASHED_BLOCK = 1 << 20;

/** A file opened for reads at any place. */
export class DataFile {
  readonly path: string;
  readonly bytes: number;
  readonly #fd: number;

  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'r');
    } catch (cause) {
      throw unreadable(path, cause);
    }
    const stat = fstatSync(this.#fd);
    if (!stat.isFile()) {
      closeSync(this.#fd);
      const kind = stat.isDirectory() ? 'is a directory' : 'is not a regular file';
      throw badData('MB_DATA_UNREADABLE', path, kind, 'dataset.path must name a file');
    }
    this.bytes = stat.size;
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

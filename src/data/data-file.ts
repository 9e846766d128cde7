import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { badData, unreadable } from './data-error.js';

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

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from '../../base/sync-folder.js';
import { HEADER_BYTES, MAGIC, pairOf, TOKEN_TYPES, VERSION, writeError, type WrittenType } from './format.js';

const LARGEST: Readonly<Record<WrittenType, number>> = { uint16: 2 ** 16 - 1, int32: 2 ** 31 - 1 };
/** Entries of the index that are written at a time. */
const CHUNK = 64 << 10;

/**
 * Writes documents of tokens as Megatron's pair `PREFIX.bin` and `PREFIX.idx`, byte for byte what its own builder writes
 * of one sequence a document. Nothing is there under these names before `commit`.
 */
export class IndexedWriter {
  readonly #prefix: string;
  readonly #type: WrittenType;
  readonly #sync: boolean;
  readonly #bin: OutputFile;
  #lengths = new Int32Array(1024);
  #documents = 0;

  private constructor(prefix: string, type: WrittenType, sync: boolean) {
    this.#prefix = prefix;
    this.#type = type;
    this.#sync = sync;
    this.#bin = new OutputFile(pairOf(prefix).bin);
  }

  /**
   * Begins a pair; what is there under the prefix stays until `commit`.
   * @param options.sync false leaves to the system when the bytes reach the disk; by default `commit` forces them to it
   * @throws MbridgeError MB_DATA_WRITE, exit 7 (as `add` and `commit` do), where it cannot be written
   */
  static create(prefix: string, options: { readonly dtype: WrittenType; readonly sync?: boolean }): IndexedWriter {
    return new IndexedWriter(prefix, options.dtype, options.sync ?? true);
  }

  /** Adds one document. @throws RangeError for a token that the type does not hold */
  add(tokens: Int32Array): void {
    const largest = LARGEST[this.#type];
    for (let i = 0; i < tokens.length; i++) {
      const token = tokens[i] as number;
      if (token < 0 || token > largest) throw new RangeError(`token ${token} at place ${i} is no ${this.#type}`);
    }
    const stored = this.#type === 'uint16' ? new Uint16Array(tokens) : tokens;
    this.#bin.write(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength));
    if (this.#documents === this.#lengths.length) {
      const longer = new Int32Array(2 * this.#lengths.length);
      longer.set(this.#lengths);
      this.#lengths = longer;
    }
    this.#lengths[this.#documents++] = tokens.length;
  }

  /** Makes the pair appear under its names, on the disk for good, in place of what was there. */
  commit(): Promise<void> {
    const { idx: idxPath } = pairOf(this.#prefix);
    return Promise.resolve().then(() => {
      const idx = new OutputFile(idxPath);
      try {
        this.#writeIndex(idx);
        idx.finish(this.#sync);
        this.#bin.finish(this.#sync);
        // Without its index a .bin file is not read: no moment has an old file beside a new one.
        guarded(idxPath, () => rmSync(idxPath, { force: true }));
        this.#bin.publish();
        idx.publish();
        if (this.#sync) guarded(idxPath, () => syncFolder(dirname(idxPath)));
      } catch (error) {
        idx.discard();
        this.abort();
        throw error;
      }
    });
  }

  /** Removes what was written. */
  abort(): void {
    this.#bin.discard();
  }

  #writeIndex(idx: OutputFile): void {
    const { code, bytes: size } = TOKEN_TYPES[this.#type];
    const documents = this.#documents;
    const head = Buffer.alloc(HEADER_BYTES);
    head.write(MAGIC, 'latin1');
    head.writeBigUInt64LE(BigInt(VERSION), 9);
    head.writeUInt8(code, 17);
    head.writeBigUInt64LE(BigInt(documents), 18);
    head.writeBigUInt64LE(BigInt(documents + 1), 26);
    idx.write(head);
    idx.write(new Uint8Array(this.#lengths.buffer, 0, documents * 4));
    let bytes = 0;
    writeInt64(idx, documents, (i) => {
      const pointer = bytes;
      bytes += (this.#lengths[i] as number) * size;
      return pointer;
    });
    writeInt64(idx, documents + 1, (i) => i);
  }
}

/** Writes `count` integers, asked for in order. */
function writeInt64(file: OutputFile, count: number, valueOf: (i: number) => number): void {
  const values = new Int32Array(2 * Math.min(CHUNK, count));
  for (let first = 0; first < count; first += CHUNK) {
    const entries = Math.min(CHUNK, count - first);
    for (let i = 0; i < entries; i++) {
      const value = valueOf(first + i);
      values[2 * i] = value | 0;
      values[2 * i + 1] = Math.floor(value / 2 ** 32);
    }
    file.write(new Uint8Array(values.buffer, 0, entries * 8));
  }
}

/** A file that gets its name when it is whole. */
class OutputFile {
  readonly #path: string;
  readonly #temporary: string;
  readonly #buffer = new Uint8Array(1 << 20);
  #used = 0;
  #fd: number | undefined;

  constructor(path: string) {
    this.#path = path;
    this.#temporary = `${path}.${process.pid}.tmp`;
    this.#fd = guarded(path, () => openSync(this.#temporary, 'w'));
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const count = Math.min(bytes.length - done, this.#buffer.length - this.#used);
      this.#buffer.set(bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
      if (this.#used === this.#buffer.length) this.#flush();
    }
  }

  /** On the disk, still under the temporary name. */
  finish(sync: boolean): void {
    this.#flush();
    const fd = this.#fd as number;
    if (sync) guarded(this.#path, () => fsyncSync(fd));
    closeSync(fd);
    this.#fd = undefined;
  }

  publish(): void {
    guarded(this.#path, () => renameSync(this.#temporary, this.#path));
  }

  discard(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    rmSync(this.#temporary, { force: true });
  }

  #flush(): void {
    const fd = this.#fd as number;
    for (let done = 0; done < this.#used;) {
      done += guarded(this.#path, () => writeSync(fd, this.#buffer, done, this.#used - done));
    }
    this.#used = 0;
  }
}

function guarded<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw writeError(path, error);
  }
}

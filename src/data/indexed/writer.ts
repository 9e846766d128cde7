import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { arrayOf, DTYPES, HEADER_BYTES, MAGIC, VERSION, writeError, type TokenDtype } from './format.js';

const BUFFER_BYTES = 4 << 20;

/**
 * Writes a pair of Megatron's: PREFIX.bin (the tokens) and PREFIX.idx (where each document lies), a sequence a document.
 * Both grow under temporary names; a pair is there when its .idx is.
 */
export class IndexedWriter {
  readonly #prefix: string;
  readonly #dtype: TokenDtype;
  readonly #sync: boolean;
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #used = 0;
  #lengths = new Int32Array(1024);
  #documents = 0;

  private constructor(prefix: string, dtype: TokenDtype, sync: boolean) {
    this.#prefix = prefix;
    this.#dtype = dtype;
    this.#sync = sync;
    this.#fd = this.#do('bin', (path) => openSync(path, 'w'));
  }

  /**
   * @param options.sync false leaves to the system when the bytes reach the disk; default: forced to it in `commit`
   * @throws MbridgeError MB_DATA_WRITE (exit 7)
   */
  static create(prefix: string, options: { readonly dtype: TokenDtype; readonly sync?: boolean }): IndexedWriter {
    return new IndexedWriter(prefix, options.dtype, options.sync ?? true);
  }

  /** Adds a document. Every token must fit the dtype. */
  add(tokens: Int32Array): void {
    if (this.#documents === this.#lengths.length) {
      const grown = new Int32Array(this.#lengths.length * 2);
      grown.set(this.#lengths);
      this.#lengths = grown;
    }
    this.#lengths[this.#documents++] = tokens.length;
    const { bytes } = DTYPES[this.#dtype];
    for (let done = 0; done < tokens.length;) {
      if (this.#used === BUFFER_BYTES) this.#flush();
      const part = tokens.subarray(done, done + (BUFFER_BYTES - this.#used) / bytes);
      const { buffer, byteOffset } = this.#buffer;
      new (arrayOf(this.#dtype))(buffer, byteOffset + this.#used, part.length).set(part);
      this.#used += part.length * bytes;
      done += part.length;
    }
  }

  /** Gives both files their names. @throws MbridgeError MB_DATA_WRITE (exit 7) */
  async commit(): Promise<void> {
    this.#flush();
    this.#do('bin', () => {
      if (this.#sync) fsyncSync(this.#fd);
      closeSync(this.#fd);
    });
    this.#do('idx', (path) => {
      const fd = openSync(path, 'w');
      try {
        for (const part of this.#index()) writeFully(fd, part);
        if (this.#sync) fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    });
    for (const kind of ['bin', 'idx'] as const) this.#do(kind, (path) => renameSync(path, `${this.#prefix}.${kind}`));
  }

  /** Removes what was written. */
  abort(): void {
    try {
      closeSync(this.#fd);
    } catch {
      // closed by a commit that failed
    }
    for (const kind of ['bin', 'idx'] as const) rmSync(this.#temporary(kind), { force: true });
  }

  *#index(): Generator<Buffer> {
    const { code, bytes } = DTYPES[this.#dtype];
    const count = this.#documents;
    const header = Buffer.alloc(HEADER_BYTES);
    MAGIC.copy(header);
    header.writeBigUInt64LE(BigInt(VERSION), 9);
    header.writeUInt8(code, 17);
    header.writeBigUInt64LE(BigInt(count), 18);
    header.writeBigUInt64LE(BigInt(count + 1), 26);
    yield header;
    yield Buffer.from(this.#lengths.buffer, 0, 4 * count);
    const pointers = new BigInt64Array(count);
    let at = 0n;
    for (let i = 0; i < count; i++) {
      pointers[i] = at;
      at += BigInt((this.#lengths[i] as number) * bytes);
    }
    yield Buffer.from(pointers.buffer);
    yield Buffer.from(BigInt64Array.from({ length: count + 1 }, (_, i) => BigInt(i)).buffer);
  }

  #flush(): void {
    this.#do('bin', () => writeFully(this.#fd, this.#buffer.subarray(0, this.#used)));
    this.#used = 0;
  }

  #temporary(kind: 'bin' | 'idx'): string {
    return `${this.#prefix}.${kind}.tmp`;
  }

  #do<T>(kind: 'bin' | 'idx', action: (path: string) => T): T {
    try {
      return action(this.#temporary(kind));
    } catch (cause) {
      throw writeError(`${this.#prefix}.${kind}`, cause);
    }
  }
}

function writeFully(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
}

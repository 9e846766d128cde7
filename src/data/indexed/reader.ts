import { closeSync, readSync } from 'node:fs';
import { openRegularFile } from '../../base/regular-file.js';
import { badData, unreadable } from '../data-error.js';
import { arrayOf, DTYPES, HEADER_BYTES, MAGIC, VERSION, type TokenDtype } from './format.js';

const AGAIN = 'write the pair again (mbridge data prepare)';

/** A pair of Megatron's, open for reading. Its index is in memory (12 bytes a sequence), its tokens are on the disk. */
export class IndexedReader {
  readonly prefix: string;
  readonly dtype: TokenDtype;
  /** Tokens of each sequence. */
  readonly lengths: Int32Array;
  /** Documents, each one or more sequences. */
  readonly documents: number;
  readonly tokens: number;
  readonly #pointers: BigInt64Array;
  readonly #fd: number;

  /** @throws MbridgeError MB_DATA_INDEX, MB_DATA_UNREADABLE (exit 7) */
  constructor(prefix: string) {
    this.prefix = prefix;
    const path = `${prefix}.idx`;
    const index = readWhole(path);
    const bad = (found: string): Error => badData('MB_DATA_INDEX', path, found, AGAIN);
    if (index.length < HEADER_BYTES || !index.subarray(0, MAGIC.length).equals(MAGIC)) {
      throw bad("does not begin as the index of Megatron's token file");
    }
    const version = Number(index.readBigUInt64LE(9));
    const code = index.readUInt8(17);
    const dtype = (Object.keys(DTYPES) as TokenDtype[]).find((name) => DTYPES[name].code === code);
    if (version !== VERSION || dtype === undefined)
      throw bad(`has version ${version} and dtype ${code}, which are not read`);
    const count = Number(index.readBigUInt64LE(18));
    const marks = Number(index.readBigUInt64LE(26));
    const size = HEADER_BYTES + 12 * count + 8 * marks;
    if (marks < 1 || index.length !== size) throw bad(`has ${index.length} bytes, its header says ${size}`);
    const section = (from: number, bytes: number): ArrayBuffer => {
      return index.buffer.slice(index.byteOffset + from, index.byteOffset + from + bytes) as ArrayBuffer;
    };
    this.dtype = dtype;
    this.lengths = new Int32Array(section(HEADER_BYTES, 4 * count));
    this.#pointers = new BigInt64Array(section(HEADER_BYTES + 4 * count, 8 * count));
    const documents = new BigInt64Array(section(HEADER_BYTES + 12 * count, 8 * marks));
    this.documents = marks - 1;
    if (
      documents[0] !== 0n ||
      Number(documents[marks - 1]) !== count ||
      documents.some((at, i) => i > 0 && at < documents[i - 1]!)
    ) {
      throw bad('its documents do not follow each other');
    }
    this.tokens = this.#checkPlaces(bad);
    this.#fd = this.#openTokens();
  }

  #checkPlaces(bad: (found: string) => Error): number {
    let at = 0;
    this.lengths.forEach((length, i) => {
      if (length < 0 || Number(this.#pointers[i]) !== at) throw bad(`sequence ${i} is not where the one before ends`);
      at += length * DTYPES[this.dtype].bytes;
    });
    return at / DTYPES[this.dtype].bytes;
  }

  #openTokens(): number {
    const path = `${this.prefix}.bin`;
    let opened: { fd: number; bytes: number };
    try {
      opened = openRegularFile(path);
    } catch (cause) {
      throw unreadable(path, cause);
    }
    const expected = this.tokens * DTYPES[this.dtype].bytes;
    if (opened.bytes !== expected) {
      closeSync(opened.fd);
      throw badData('MB_DATA_INDEX', path, `has ${opened.bytes} bytes, its index says ${expected}`, AGAIN);
    }
    return opened.fd;
  }

  /** The tokens of sequence `index`, at most `most`. */
  sequence(index: number, most = Infinity): Int32Array {
    const length = Math.min(this.lengths[index] as number, most);
    const raw = new (arrayOf(this.dtype))(length);
    const view = new Uint8Array(raw.buffer);
    for (let done = 0; done < view.length;) {
      const got = readSync(this.#fd, view, done, view.length - done, Number(this.#pointers[index]) + done);
      if (got === 0) throw badData('MB_DATA_INDEX', `${this.prefix}.bin`, 'ends before its index does', AGAIN);
      done += got;
    }
    return raw instanceof Int32Array ? raw : Int32Array.from(raw);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function readWhole(path: string): Buffer {
  try {
    const { fd, bytes } = openRegularFile(path);
    try {
      const all = Buffer.alloc(bytes);
      for (let done = 0; done < bytes;) {
        const got = readSync(fd, all, done, Math.min(bytes - done, 1 << 30), done);
        if (got === 0) break;
        done += got;
      }
      return all;
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

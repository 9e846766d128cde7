import { existsSync } from 'node:fs';
import { badData } from '../data-error.js';
import { closingOnError, DataFile } from '../data-file.js';
import type { FileFingerprint } from '../dataset.js';
import { int64, pairOf, TOKEN_TYPES, type TokenType } from './format.js';
import { readDocumentStarts, readHeader } from './index-file.js';

/** Looked through when a file is opened; of a larger one as much, in equal parts. Every token is checked as it is read. */
const CHECKED_BYTES = 16 << 20;
const PARTS = 64;

/** Documents of tokens in Megatron's `PREFIX.bin` and `PREFIX.idx`, with random access to the tokens of all of them. */
export class TokenFile {
  readonly prefix: string;
  readonly type: TokenType;
  /** How many tokens come before each document; one entry more than there are documents. */
  readonly starts: Float64Array;
  readonly #idx: DataFile;
  readonly #bin: DataFile;
  readonly #vocabSize: number;
  #bytes = new Uint8Array(0);

  /** @throws MbridgeError exit 7 for what is missing or is not a pair, or has a token that is not of the vocabulary */
  constructor(prefix: string, vocabSize: number) {
    const { idx, bin } = openPair(prefix);
    this.prefix = prefix;
    this.#idx = idx;
    this.#bin = bin;
    this.#vocabSize = vocabSize;
    const header = closingOnError(this, () => readHeader(idx));
    this.type = header.type;
    this.starts = closingOnError(this, () => readDocumentStarts(idx, header, bin.bytes));
    closingOnError(this, () => this.#check());
  }

  get documents(): number {
    return this.starts.length - 1;
  }

  get tokens(): number {
    return this.starts[this.documents] as number;
  }

  /** Copies tokens start..start+dst.length-1 of the file to `dst`. @throws MbridgeError MB_DATA_TOKEN, exit 7 */
  read(start: number, dst: Int32Array): void {
    const { bytes: size } = TOKEN_TYPES[this.type];
    const bytes = dst.length * size;
    if (this.#bytes.length < bytes) this.#bytes = new Uint8Array(Math.ceil(bytes / 8) * 8);
    this.#bin.read(this.#bytes.subarray(0, bytes), start * size);
    const bad = copyTokens(this.type, this.#bytes.buffer as ArrayBuffer, dst, this.#vocabSize);
    if (bad === undefined) return;
    const at = start + bad.at;
    const found = `token ${bad.token} at place ${at} (document ${this.#documentOf(at)}) is not in the vocabulary of ${this.#vocabSize} (0..${this.#vocabSize - 1})`;
    throw badData('MB_DATA_TOKEN', this.#bin.path, found, 'tokenise the data with the tokenizer of this model', {
      token: bad.token,
      position: at,
      vocabSize: this.#vocabSize,
    });
  }

  /** Tokens of a document. */
  lengthOf(document: number): number {
    return (this.starts[document + 1] as number) - (this.starts[document] as number);
  }

  /** The first tokens of a document, at most `most`. @throws MbridgeError MB_DATA_TOKEN, exit 7 */
  document(index: number, most = Infinity): Int32Array {
    const tokens = new Int32Array(Math.min(most, this.lengthOf(index)));
    this.read(this.starts[index] as number, tokens);
    return tokens;
  }

  /** Sets entries of `dst`, 0 before, to 1 where token start + j is the first of a document. */
  begins(start: number, dst: Uint8Array): void {
    // The first document that begins at `start` or later.
    let [low, high] = [0, this.documents];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.starts[middle] as number) < start) low = middle + 1;
      else high = middle;
    }
    for (let at: number; low < this.documents && (at = (this.starts[low] as number) - start) < dst.length; low++)
      dst[at] = 1;
  }

  fingerprints(): FileFingerprint[] {
    return [this.#idx, this.#bin].map((file) => file.fingerprint(file.path));
  }

  close(): void {
    this.#idx.close();
    this.#bin.close();
  }

  #check(): void {
    const { bytes: size } = TOKEN_TYPES[this.type];
    const { tokens } = this;
    const whole = tokens * size <= CHECKED_BYTES;
    const part = new Int32Array(whole ? Math.min(tokens, 1 << 18) : CHECKED_BYTES / PARTS / size);
    const parts = whole ? Math.ceil(tokens / part.length) : PARTS;
    for (let i = 0; i < parts; i++) {
      const start = whole ? i * part.length : Math.floor(((tokens - part.length) / (parts - 1)) * i);
      this.read(start, part.subarray(0, Math.min(part.length, tokens - start)));
    }
  }

  /** Slow: for errors only. */
  #documentOf(token: number): number {
    return this.starts.findLastIndex((start) => start <= token);
  }
}

/** Whether a path is the prefix of a pair. */
export function isPair(prefix: string): boolean {
  const { idx, bin } = pairOf(prefix);
  return existsSync(idx) && existsSync(bin);
}

/**
 * Opens a pair and looks at its header only.
 * @throws MbridgeError exit 7
 */
export function checkPair(prefix: string): void {
  const { idx, bin } = openPair(prefix);
  try {
    readHeader(idx);
  } finally {
    idx.close();
    bin.close();
  }
}

function openPair(prefix: string): { idx: DataFile; bin: DataFile } {
  const paths = pairOf(prefix);
  const missing = [paths.idx, paths.bin].filter((path) => !existsSync(path));
  if (missing.length > 0) {
    const ending = /\.(idx|bin)$/.exec(prefix)?.[0];
    const named = 'name both files by their path without .idx and .bin';
    const hint = missing.length === 1 ? 'the other file of the pair is there: copy or write both again' : named;
    const found = missing.length === 1 ? 'no such file' : `no such file, nor ${paths.bin}`;
    const where = missing[0] as string;
    throw badData('MB_DATA_UNREADABLE', where, found, ending === undefined ? hint : `${named}, not ${ending}`);
  }
  const idx = new DataFile(paths.idx, null);
  return closingOnError(idx, () => ({ idx, bin: new DataFile(paths.bin, null) }));
}

/** Sets `dst` to the tokens that `bytes` begins with, and returns the first that is not below `vocabSize`. */
function copyTokens(
  type: TokenType,
  bytes: ArrayBuffer,
  dst: Int32Array,
  vocabSize: number,
): { at: number; token: number } | undefined {
  if (type === 'int64') return copyInt64(new Int32Array(bytes), dst, vocabSize);
  const src = viewOf(type, bytes);
  for (let i = 0; i < dst.length; i++) {
    const token = src[i] as number;
    if (token < 0 || token >= vocabSize) return { at: i, token };
    dst[i] = token;
  }
  return undefined;
}

function copyInt64(halves: Int32Array, dst: Int32Array, vocabSize: number): { at: number; token: number } | undefined {
  for (let i = 0; i < dst.length; i++) {
    const token = int64(halves[2 * i] as number, halves[2 * i + 1] as number);
    if (token < 0 || token >= vocabSize) return { at: i, token };
    dst[i] = token;
  }
  return undefined;
}

function viewOf(type: Exclude<TokenType, 'int64'>, bytes: ArrayBuffer): ArrayLike<number> {
  switch (type) {
    case 'uint8':
      return new Uint8Array(bytes);
    case 'int8':
      return new Int8Array(bytes);
    case 'int16':
      return new Int16Array(bytes);
    case 'uint16':
      return new Uint16Array(bytes);
    case 'int32':
      return new Int32Array(bytes);
  }
}

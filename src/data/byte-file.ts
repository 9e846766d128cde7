import { Utf8Check } from '../base/utf8.js';
import { badData } from './data-error.js';
import { closingOnError, DataFile } from './data-file.js';
import type { FileFingerprint } from './dataset.js';
import type { TokenSource } from './token-blocks.js';

/** A file of up to this size is looked through when it is opened; of a larger one this much, in equal parts. */
const CHECKED_BYTES = 64 << 20;
const PARTS = 64;

/**
 * A text file through the byte tokenizer: token i is byte i (a byte-order mark is left out), read where it is needed,
 * so the file may be any size. Opening refuses what is not UTF-8, and NULs.
 */
export class ByteFile implements TokenSource {
  readonly name: string;
  readonly length: number;
  readonly tokenBytes: ArrayLike<number>;
  readonly #file: DataFile;
  #scratch = new Uint8Array(0);

  /** @param tokenBytes the byte tokenizer's */
  constructor(path: string, name: string, tokenBytes: ArrayLike<number>) {
    this.#file = new DataFile(path, 'text');
    this.tokenBytes = tokenBytes;
    this.name = name;
    this.length = this.#file.bytes - this.#file.markBytes;
    closingOnError(this, () => checkText(this.#file, CHECKED_BYTES));
  }

  read(start: number, dst: Int32Array): void {
    if (this.#scratch.length !== dst.length) this.#scratch = new Uint8Array(dst.length);
    this.#file.read(this.#scratch, start + this.#file.markBytes);
    dst.set(this.#scratch);
  }

  fingerprint(): FileFingerprint {
    return this.#file.fingerprint(this.name);
  }

  close(): void {
    this.#file.close();
  }
}

/** Refuses bytes that no text has, in at most `most` bytes of the file. */
export function checkText(file: DataFile, most: number): void {
  const { bytes } = file;
  const parts = bytes <= most ? 1 : PARTS;
  const size = bytes <= most ? bytes : Math.floor(most / PARTS);
  for (let i = 0; i < parts; i++) {
    const from = i === 0 ? 0 : Math.floor(((bytes - size) / (parts - 1)) * i);
    checkPart(file, from, from + size);
  }
}

function checkPart(file: DataFile, from: number, to: number): void {
  const start = from + restOfCharacter(file, from);
  const check = new Utf8Check();
  for (const { part, position } of file.chunks(start, to)) {
    const bad = check.push(part);
    if (bad >= 0) throw file.notUtf8(start + bad);
    const nul = part.indexOf(0);
    if (nul >= 0) {
      const found = `holds a NUL (byte ${position + nul} of the file): it is no text`;
      throw badData('MB_DATA_FORMAT', `${file.path}:${file.lineOf(position + nul).line}`, found, 'take the NULs out');
    }
  }
  const cut = to === file.bytes ? check.end() : -1;
  if (cut >= 0) throw file.notUtf8(start + cut);
}

/** Bytes at `from` that belong to a character which began before. */
function restOfCharacter(file: DataFile, from: number): number {
  if (from === 0) return 0;
  const next = Buffer.alloc(Math.min(3, file.bytes - from));
  file.read(next, from);
  const length = next.findIndex((byte) => (byte & 0xc0) !== 0x80);
  return length < 0 ? 0 : length;
}

import { DataFile } from './data-file.js';
import type { FileFingerprint } from './dataset.js';
import type { TokenSource } from './token-blocks.js';

/** A text file through the byte tokenizer: token i is byte i, read where it is needed, so the file may be any size. */
export class ByteFile implements TokenSource {
  readonly name: string;
  readonly length: number;
  readonly #file: DataFile;
  #scratch = new Uint8Array(0);

  constructor(path: string, name = path) {
    this.#file = new DataFile(path);
    this.name = name;
    this.length = this.#file.bytes;
  }

  read(start: number, dst: Int32Array): void {
    if (this.#scratch.length !== dst.length) this.#scratch = new Uint8Array(dst.length);
    this.#file.read(this.#scratch, start);
    dst.set(this.#scratch);
  }

  fingerprint(): FileFingerprint {
    return this.#file.fingerprint(this.name);
  }

  close(): void {
    this.#file.close();
  }
}

import { closeSync, writeSync } from 'node:fs';

/** A file that a run can do without: what cannot be written is dropped, after one warning. */
export class BestEffortFile {
  readonly #path: string;
  readonly #open: (path: string) => number;
  readonly #warn: (text: string) => void;
  /** Of the file, which is made with the first write; null once it could not be written. */
  #descriptor: number | null | undefined;

  /** @param open gives a descriptor that writes at the end of the file */
  constructor(path: string, open: (path: string) => number, warn: (text: string) => void) {
    this.#path = path;
    this.#open = open;
    this.#warn = warn;
  }

  append(bytes: Uint8Array): void {
    if (this.#descriptor === null) return;
    try {
      this.#descriptor ??= this.#open(this.#path);
      if (writeSync(this.#descriptor, bytes) !== bytes.length) throw new Error('the disk is full');
    } catch (error) {
      if (this.#descriptor !== undefined) closeSync(this.#descriptor);
      this.#descriptor = null;
      const reason = error instanceof Error ? error.message : String(error);
      this.#warn(`${this.#path} cannot be written: ${reason}; the run goes on without it`);
    }
  }
}

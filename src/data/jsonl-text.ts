import { badData } from './data-error.js';
import type { FileFingerprint } from './dataset.js';
import type { JsonlFile } from './jsonl-file.js';
import type { TokenSource } from './token-blocks.js';
import type { Tokenizer } from './tokenizer.js';

/**
 * The texts of `{"text": ...}` lines, tokenised one by one and put end to end, with the tokenizer's end-of-document
 * token between two of them; an empty text is none. Opening parses the whole file once to count tokens (one number a
 * line is kept); reading tokenises a line again when its tokens are needed.
 */
export class JsonlText implements TokenSource {
  readonly name: string;
  readonly length: number;
  readonly tokenBytes: ArrayLike<number> | undefined;
  readonly #file: JsonlFile;
  readonly #tokenizer: Tokenizer;
  /** Entry i: tokens before line i; its own begin with the separator from what is before. */
  readonly #before: Float64Array;
  #current: { line: number; tokens: Uint8Array | Int32Array } = { line: -1, tokens: new Uint8Array(0) };

  constructor(file: JsonlFile, tokenizer: Tokenizer) {
    this.name = file.path;
    this.#file = file;
    this.#tokenizer = tokenizer;
    this.tokenBytes = tokenizer.tokenBytes;
    this.#before = new Float64Array(file.length + 1);
    let total = 0;
    for (let line = 0; line < file.length; line++) {
      this.#before[line] = total;
      const count = tokenizer.count(this.#text(line));
      total += count > 0 && total > 0 ? count + 1 : count;
    }
    this.#before[file.length] = total;
    this.length = total;
  }

  read(start: number, dst: Int32Array): void {
    for (let line = this.#lineOf(start), done = 0; done < dst.length; line++) {
      const tokens = this.#tokens(line);
      const from = start + done - (this.#before[line] as number);
      const part = tokens.subarray(from, from + dst.length - done);
      dst.set(part, done);
      done += part.length;
    }
  }

  begins(start: number, dst: Uint8Array): void {
    dst.fill(0);
    for (let line = this.#lineOf(start); line < this.#file.length; line++) {
      const from = this.#before[line] as number;
      if (from >= start + dst.length) return;
      // An empty text is none; the separator before a text belongs to the one that it ends.
      if (this.#before[line + 1] === from) continue;
      const at = from + (from > 0 ? 1 : 0) - start;
      if (at >= 0 && at < dst.length) dst[at] = 1;
    }
  }

  /** The last line that starts at or before token `position`. */
  #lineOf(position: number): number {
    let low = 0;
    let high = this.#before.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((this.#before[middle] as number) <= position) low = middle;
      else high = middle;
    }
    return low;
  }

  #tokens(line: number): Uint8Array | Int32Array {
    if (this.#current.line === line) return this.#current.tokens;
    const text = this.#tokenizer.encode(this.#text(line));
    const length = (this.#before[line + 1] as number) - (this.#before[line] as number);
    let tokens: Uint8Array | Int32Array = text;
    if (length > text.length) {
      tokens = new Int32Array(length);
      tokens[0] = this.#tokenizer.endOfDocument;
      tokens.set(text, 1);
    }
    this.#current = { line, tokens };
    return tokens;
  }

  #text(line: number): string {
    const { text } = this.#file.object(line);
    if (typeof text === 'string') {
      const half = /\p{Surrogate}/u.exec(text);
      if (half === null) return text;
      const found = `"text" has half a character (\\u${half[0].charCodeAt(0).toString(16)}) at position ${half.index}`;
      throw badData(
        'MB_DATA_ENCODING',
        this.#file.where(line),
        found,
        'mend this line: both halves make one character',
      );
    }
    const found = text === undefined ? 'no "text"' : '"text" is not a string';
    throw badData('MB_DATA_SAMPLE', this.#file.where(line), found, 'every line of this file must hold {"text": "..."}');
  }

  fingerprint(): FileFingerprint {
    return this.#file.fingerprint();
  }

  close(): void {
    this.#file.close();
  }
}

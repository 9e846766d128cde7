import { badData } from './data-error.js';
import { closingOnError, DataFile } from './data-file.js';
import type { FileFingerprint } from './dataset.js';

const CHUNK = 4 << 20;
const LONGEST_LINE = 256 << 20;
const NEWLINE = 0x0a;

/**
 * A file of one JSON object a line, any size: only where each line starts is held in memory (16 bytes a line), a line is
 * read and parsed when it is asked for. Blank lines are skipped.
 */
export class JsonlFile {
  readonly path: string;
  readonly #file: DataFile;
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  #line = Buffer.alloc(0);

  private constructor(file: DataFile, starts: Float64Array, ends: Float64Array) {
    this.path = file.path;
    this.#file = file;
    this.#starts = starts;
    this.#ends = ends;
  }

  /** Streams once through the file to find its lines. */
  static open(path: string): JsonlFile {
    const file = new DataFile(path);
    return closingOnError(file, () => {
      const { starts, ends } = findLines(file);
      return new JsonlFile(file, starts, ends);
    });
  }

  /** Lines that are not blank. */
  get length(): number {
    return this.#starts.length;
  }

  /** The object of line `index` (from 0, blank lines not counted). */
  object(index: number): Record<string, unknown> {
    const start = this.#starts[index] as number;
    const bytes = (this.#ends[index] as number) - start;
    if (bytes > LONGEST_LINE) {
      const found = `a line of ${bytes} bytes, the limit is ${LONGEST_LINE}`;
      throw badData('MB_DATA_JSON', this.where(index), found, 'a .jsonl file has one object a line');
    }
    if (this.#line.length < bytes) this.#line = Buffer.allocUnsafeSlow(bytes);
    const line = this.#line.subarray(0, bytes);
    this.#file.read(line, start);
    let value: unknown;
    try {
      value = JSON.parse(line.toString('utf8'));
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw badData('MB_DATA_JSON', this.where(index), `bad JSON: ${reason}`, 'mend or remove this line');
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw badData('MB_DATA_JSON', this.where(index), 'not a JSON object', 'write one {"input_ids": [...]} a line');
    }
    return value as Record<string, unknown>;
  }

  /** `file:line` with the line number that an editor shows. Slow (counts from the start): for errors only. */
  where(index: number): string {
    const end = this.#starts[index] as number;
    const chunk = Buffer.allocUnsafe(CHUNK);
    let line = 1;
    for (let position = 0; position < end; position += CHUNK) {
      const part = chunk.subarray(0, Math.min(CHUNK, end - position));
      this.#file.read(part, position);
      for (let at = part.indexOf(NEWLINE); at >= 0; at = part.indexOf(NEWLINE, at + 1)) line++;
    }
    return `${this.path}:${line}`;
  }

  fingerprint(): FileFingerprint {
    return this.#file.fingerprint(this.path);
  }

  close(): void {
    this.#file.close();
  }
}

function findLines(file: DataFile): { starts: Float64Array; ends: Float64Array } {
  const starts: number[] = [];
  const ends: number[] = [];
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(file.bytes, 1)));
  let start = markBytes(file);
  let blank = true;
  const endLine = (end: number): void => {
    if (!blank) {
      starts.push(start);
      ends.push(end);
    }
    start = end + 1;
    blank = true;
  };
  for (let position = start; position < file.bytes; position += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, file.bytes - position));
    file.read(part, position);
    for (let from = 0; from < part.length;) {
      const at = part.indexOf(NEWLINE, from);
      const to = at < 0 ? part.length : at;
      blank = blank && isBlank(part, from, to);
      if (at >= 0) endLine(position + at);
      from = to + 1;
    }
  }
  endLine(file.bytes);
  return { starts: Float64Array.from(starts), ends: Float64Array.from(ends) };
}

/** Bytes of the byte-order mark that some editors write at the start of a file. */
function markBytes(file: DataFile): number {
  if (file.bytes < 3) return 0;
  const first = Buffer.alloc(3);
  file.read(first, 0);
  return first.toString('hex') === 'efbbbf' ? 3 : 0;
}

function isBlank(bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    const byte = bytes[i];
    if (byte !== 0x20 && byte !== 0x09 && byte !== 0x0d) return false;
  }
  return true;
}

import { Utf8Check } from '../base/utf8.js';
import { badData } from './data-error.js';
import { closingOnError, DataFile } from './data-file.js';
import type { FileFingerprint } from './dataset.js';
import { jsonHint } from './json-hint.js';

const LONGEST_LINE = 256 << 20;
const NEWLINE = 0x0a;
const [OPEN, CLOSE] = [0x7b, 0x7d];

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

  /**
   * Streams once through the file to find its lines. What is not UTF-8 is refused, and a line that does not begin and
   * end as an object does.
   */
  static open(path: string): JsonlFile {
    const file = new DataFile(path, 'jsonl');
    return closingOnError(file, () => {
      const { starts, ends, amiss } = findLines(file);
      const lines = new JsonlFile(file, starts, ends);
      if (amiss !== undefined) lines.object(amiss);
      return lines;
    });
  }

  /** The object of the first line, without a look at the others; undefined where it is none. */
  static first(path: string): Record<string, unknown> | undefined {
    const file = new DataFile(path, 'jsonl');
    try {
      return parseObject(firstLine(file));
    } finally {
      file.close();
    }
  }

  get bytes(): number {
    return this.#file.bytes;
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
      const hint = jsonHint(line, { first: index === 0, last: index === this.length - 1 });
      throw badData('MB_DATA_JSON', this.where(index), `bad JSON: ${reason}`, hint);
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      const hint = Array.isArray(value) && index === 0 ? jsonHint(line, { first: true }) : undefined;
      const object = 'write one {"input_ids": [...]} or {"text": "..."} a line';
      throw badData('MB_DATA_JSON', this.where(index), 'not a JSON object', hint ?? object);
    }
    return value as Record<string, unknown>;
  }

  /** `file:line` with the line number that an editor shows. Slow (counts from the start): for errors only. */
  where(index: number): string {
    return `${this.path}:${this.#file.lineOf(this.#starts[index] as number).line}`;
  }

  fingerprint(): FileFingerprint {
    return this.#file.fingerprint(this.path);
  }

  close(): void {
    this.#file.close();
  }
}

function firstLine(file: DataFile): string {
  const parts: Buffer[] = [];
  for (const { part } of file.chunks(file.markBytes, file.bytes)) {
    parts.push(Buffer.from(part));
    const text = Buffer.concat(parts);
    for (let from = 0, to = text.indexOf(NEWLINE); to >= 0; from = to + 1, to = text.indexOf(NEWLINE, from)) {
      const line = text.toString('utf8', from, to);
      if (line.trim() !== '') return line;
    }
    if (text.length > LONGEST_LINE) break;
  }
  return Buffer.concat(parts).toString('utf8').trim();
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

interface Lines {
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  /** The first line that is no JSON object by its first and last character. */
  readonly amiss: number | undefined;
}

function findLines(file: DataFile): Lines {
  const starts: number[] = [];
  const ends: number[] = [];
  const utf8 = new Utf8Check();
  let amiss: number | undefined;
  let start = file.markBytes;
  // First and last byte of the line that are not blank.
  let [first, last] = [-1, -1];
  const endLine = (end: number): void => {
    if (first >= 0) {
      if (first !== OPEN || last !== CLOSE) amiss ??= starts.length;
      starts.push(start);
      ends.push(end);
    }
    start = end + 1;
    [first, last] = [-1, -1];
  };
  for (const { part, position } of file.chunks(start, file.bytes)) {
    const bad = utf8.push(part);
    if (bad >= 0) throw file.notUtf8(file.markBytes + bad);
    for (let from = 0; from < part.length;) {
      const at = part.indexOf(NEWLINE, from);
      const to = at < 0 ? part.length : at;
      let [a, b] = [from, to - 1];
      while (a < to && isBlank(part[a])) a++;
      while (b > a && isBlank(part[b])) b--;
      if (a < to) {
        if (first < 0) first = part[a] as number;
        last = part[b] as number;
      }
      if (at >= 0) endLine(position + at);
      from = to + 1;
    }
  }
  const cut = utf8.end();
  if (cut >= 0) throw file.notUtf8(file.markBytes + cut);
  endLine(file.bytes);
  return { starts: Float64Array.from(starts), ends: Float64Array.from(ends), amiss };
}

function isBlank(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d;
}

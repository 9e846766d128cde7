import { badData } from '../data-error.js';
import { HEAD_BYTES, refuseKinds } from '../foreign-file.js';
import type { InputFile } from './input-files.js';
import { readBytes } from './read-bytes.js';
import { parquetTexts } from './read-parquet.js';

/** A part of a file that a thread makes tokens of. Its memory goes to that thread. */
export type Block =
  | { readonly kind: 'document' | 'lines'; readonly bytes: Uint8Array<ArrayBuffer> }
  /** Values of the field in rows of a table, or elements of a list. */
  | { readonly kind: 'values'; readonly values: readonly unknown[] };

/** Text that makes a block: large enough to be worth a message, small enough for all threads to have some. */
const BLOCK_BYTES = 1 << 20;
/** The largest document: near the longest string that V8 has. */
const LARGEST = 256 << 20;
const NEWLINE = 0x0a;
const MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/**
 * A file's documents in its order, in blocks.
 * @throws MbridgeError exit 7 naming the file: unreadable, damaged, no text, too large
 */
export async function* readBlocks(
  file: InputFile,
  field: string,
  onRead: (bytes: number) => void,
): AsyncGenerator<Block> {
  if (file.kind === 'arrow') {
    const { arrowTexts } = await import('./read-arrow.js');
    for (const values of arrowTexts(file.path, field, onRead)) yield* inBlocks(values);
    return;
  }
  if (file.kind === 'parquet') {
    for await (const values of parquetTexts(file.path, field, onRead)) yield* inBlocks(values);
    return;
  }
  const bytes = asText(file.path, readBytes(file.path, onRead));
  if (file.kind === 'lines') yield* wholeLines(file.path, bytes);
  else {
    const content = await collect(file.path, bytes);
    if (file.kind === 'text') yield { kind: 'document', bytes: content };
    else yield* inBlocks(elements(file.path, content, field));
  }
}

/** Refuses what is no text by its first bytes, and leaves a byte-order mark out. */
async function* asText(path: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let first = true;
  for await (const chunk of chunks) {
    if (!first) {
      yield chunk;
      continue;
    }
    first = false;
    refuseKinds(path.replace(/\.(gz|gzip|zst|zstd)$/i, ''), chunk.subarray(0, HEAD_BYTES), (found, hint) => {
      throw badData(
        'MB_DATA_FORMAT',
        path,
        found,
        hint.replace(/ and set dataset\.type=jsonl|dataset\.path must name /, ''),
      );
    });
    yield MARK.equals(chunk.subarray(0, 3)) ? chunk.subarray(3) : chunk;
  }
}

async function* wholeLines(path: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Block> {
  let parts: Uint8Array[] = [];
  let size = 0;
  const take = (): Block => {
    const block: Block = { kind: 'lines', bytes: joined(parts, size) };
    [parts, size] = [[], 0];
    return block;
  };
  for await (const chunk of chunks) {
    const end = size + chunk.length < BLOCK_BYTES ? 0 : chunk.lastIndexOf(NEWLINE) + 1;
    if (end > 0) {
      parts.push(chunk.subarray(0, end));
      size += end;
      yield take();
    }
    if (end < chunk.length) parts.push(chunk.subarray(end));
    size += chunk.length - end;
    if (size > LARGEST) throw tooLarge(path, 'a line');
  }
  if (size > 0) yield take();
}

async function collect(path: string, chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    parts.push(chunk);
    size += chunk.length;
    if (size > LARGEST) throw tooLarge(path, 'one document');
  }
  return joined(parts, size);
}

/** A copy whose memory is its own. */
function joined(parts: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function tooLarge(path: string, what: string): Error {
  const hint = 'cut it into documents, one {"text": "..."} a line of a .jsonl file';
  return badData('MB_DATA_LARGE', path, `has ${what} of more than ${LARGEST >> 20} MiB`, hint);
}

/** The elements of a JSON array, of objects their field. */
function elements(path: string, content: Uint8Array, field: string): unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(content));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badData('MB_DATA_JSON', path, `is no JSON: ${reason}`, 'mend the file; one object a line is a .jsonl file');
  }
  if (!Array.isArray(value)) {
    throw badData(
      'MB_DATA_JSON',
      path,
      'is no JSON array',
      'write [{"text": "..."}, ...], or one object a line as .jsonl',
    );
  }
  return value.map((element: unknown) => {
    return typeof element === 'object' && element !== null ? (element as Record<string, unknown>)[field] : element;
  });
}

function* inBlocks(values: readonly unknown[]): Generator<Block> {
  let [from, size] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    size += typeof value === 'string' ? value.length : 0;
    if (size < BLOCK_BYTES && i < values.length - 1) continue;
    yield { kind: 'values', values: values.slice(from, i + 1) };
    [from, size] = [i + 1, 0];
  }
}

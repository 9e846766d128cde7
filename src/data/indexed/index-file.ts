import { badData } from '../data-error.js';
import type { DataFile } from '../data-file.js';
import { HEADER_BYTES, int64, MAGIC, TOKEN_TYPES, VERSION, type TokenType } from './format.js';

/** Entries that are read at a time. */
const CHUNK = 512 << 10;

/** What an `.idx` file says of its pair, but for the places of its documents. */
export interface IndexHeader {
  readonly type: TokenType;
  readonly sequences: number;
  readonly documents: number;
}

/**
 * Reads the first bytes of an `.idx` file, and holds its size against them.
 * @throws MbridgeError MB_DATA_INDEX or MB_DATA_EMPTY, exit 7
 */
export function readHeader(idx: DataFile): IndexHeader {
  if (idx.bytes === 0) throw badData('MB_DATA_EMPTY', idx.path, 'is empty', 'write the pair again');
  const head = Buffer.alloc(Math.min(HEADER_BYTES, idx.bytes));
  idx.read(head, 0);
  if (head.toString('latin1', 0, MAGIC.length) !== MAGIC) {
    throw badIndex(
      idx,
      'does not begin as an index of tokens does (MMIDIDX)',
      'name a pair that Megatron or mbridge wrote',
    );
  }
  if (head.length < HEADER_BYTES) throw badIndex(idx, `ends at byte ${idx.bytes}, inside its header`, AGAIN);
  const version = head.readBigUInt64LE(9);
  if (version !== BigInt(VERSION)) throw badIndex(idx, `is of version ${version}, only ${VERSION} is read`, AGAIN);
  const code = head[17];
  const type = (Object.keys(TOKEN_TYPES) as TokenType[]).find((name) => TOKEN_TYPES[name].code === code);
  if (type === undefined) {
    const found = { 6: 'float64', 7: 'float32' }[code as number] ?? `an unknown type (code ${code})`;
    throw badIndex(idx, `says that the tokens are ${found}`, `tokens are ${Object.keys(TOKEN_TYPES).join(', ')}`);
  }
  const sequences = Number(head.readBigUInt64LE(18));
  const entries = Number(head.readBigUInt64LE(26));
  const expected = HEADER_BYTES + sequences * 12 + entries * 8;
  if (idx.bytes !== expected) {
    const found = `has ${idx.bytes} bytes, its header asks for ${expected} (${sequences} sequences, ${entries} document entries)`;
    throw badIndex(
      idx,
      found,
      idx.bytes === expected + sequences ? 'modes of sequences (multimodal data) are not read' : AGAIN,
    );
  }
  if (sequences === 0 || entries < 2) throw badData('MB_DATA_EMPTY', idx.path, 'holds no document', 'give other data');
  return { type, sequences, documents: entries - 1 };
}

/**
 * Reads where documents begin: entry d is how many tokens of the `.bin` file come before document d, the last entry is
 * the number of tokens. Memory grows with the documents (8 bytes each), time too: some 50 ns each.
 * @param binBytes size of the `.bin` file
 * @throws MbridgeError MB_DATA_INDEX, exit 7, naming the first entry that cannot be
 */
export function readDocumentStarts(idx: DataFile, header: IndexHeader, binBytes: number): Float64Array {
  const { sequences, documents, type } = header;
  const { bytes: size } = TOKEN_TYPES[type];
  const before = readLengths(idx, sequences);
  let position = HEADER_BYTES + sequences * 4;
  forEachInt64(idx, position, sequences, (pointer, s) => {
    const expected = (before[s] as number) * size;
    if (pointer === expected) return;
    const found = `sequence ${s} begins at byte ${pointer} of the .bin file, the one before it ends at byte ${expected}`;
    throw badIndex(idx, found, AGAIN);
  });
  const needed = (before[sequences] as number) * size;
  if (needed !== binBytes) {
    const found = `${needed} bytes of tokens (${before[sequences]} of ${type}) are in the index, the .bin file has ${binBytes}`;
    throw badIndex(idx, found, `the two files are not a pair, or one was cut: ${AGAIN}`);
  }
  position += sequences * 8;
  const starts = new Float64Array(documents + 1);
  let last = 0;
  forEachInt64(idx, position, documents + 1, (sequence, d) => {
    if (d === 0 ? sequence !== 0 : sequence < last || sequence > sequences) {
      const range = d === 0 ? '0' : `${last} to ${sequences}`;
      throw badIndex(idx, `document ${d} begins with sequence ${sequence}, expected ${range}`, AGAIN);
    }
    last = sequence;
    starts[d] = before[sequence] as number;
  });
  if (last !== sequences) throw badIndex(idx, `the documents end at sequence ${last} of ${sequences}`, AGAIN);
  return starts;
}

/** Tokens before each sequence, and behind the last. */
function readLengths(idx: DataFile, sequences: number): Float64Array {
  const before = new Float64Array(sequences + 1);
  let tokens = 0;
  forEachChunk(idx, HEADER_BYTES, sequences, 4, (values, first, count) => {
    for (let i = 0; i < count; i++) {
      const length = values[i] as number;
      if (length < 0) throw badIndex(idx, `sequence ${first + i} has a length of ${length}`, AGAIN);
      tokens += length;
      before[first + i + 1] = tokens;
    }
  });
  return before;
}

function forEachInt64(idx: DataFile, position: number, entries: number, use: (value: number, i: number) => void): void {
  forEachChunk(idx, position, entries, 8, (halves, first, count) => {
    for (let i = 0; i < count; i++) use(int64(halves[2 * i] as number, halves[2 * i + 1] as number), first + i);
  });
}

function forEachChunk(
  idx: DataFile,
  position: number,
  entries: number,
  entryBytes: number,
  use: (values: Int32Array, first: number, count: number) => void,
): void {
  const bytes = new Uint8Array(Math.min(CHUNK, entries) * entryBytes);
  const values = new Int32Array(bytes.buffer);
  for (let first = 0; first < entries; first += CHUNK) {
    const count = Math.min(CHUNK, entries - first);
    idx.read(bytes.subarray(0, count * entryBytes), position + first * entryBytes);
    use(values, first, count);
  }
}

const AGAIN = 'copy or write both files again';

function badIndex(idx: DataFile, found: string, hint: string): Error {
  return badData('MB_DATA_INDEX', idx.path, found, hint);
}

import { elementCount } from '../../base/element-count.js';
import { badFile } from './safetensors-error.js';

/** Bytes of an element, by the format's dtype names. */
export const DTYPE_BYTES = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;

export type SafetensorsDtype = keyof typeof DTYPE_BYTES;

/** A tensor to be stored. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  /** Row-major; empty for a scalar. */
  readonly shape: readonly number[];
}

/** A tensor in a file. */
export interface TensorEntry extends TensorSpec {
  /** First byte, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface SafetensorsHeader {
  /** In the order of their bytes in the file. */
  readonly tensors: readonly TensorEntry[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Size of the whole file. */
  readonly fileBytes: number;
}

/** The format's own limit on the JSON text. */
const MAX_HEADER_BYTES = 100_000_000;
export const LENGTH_BYTES = 8;

/** Length of the JSON text, from the first 8 bytes of a file of `fileBytes` bytes. */
export function parseHeaderLength(first: Uint8Array, file: string, fileBytes: number): number {
  if (fileBytes < LENGTH_BYTES) throw truncated(file, LENGTH_BYTES, fileBytes);
  const length = Buffer.from(first.buffer, first.byteOffset, LENGTH_BYTES).readBigUInt64LE();
  if (length > MAX_HEADER_BYTES) {
    throw badFile('HEADER', file, `header length ${length} is over ${MAX_HEADER_BYTES}`, NOT_SAFETENSORS);
  }
  const end = LENGTH_BYTES + Number(length);
  if (end > fileBytes) throw truncated(file, end, fileBytes, 'at least ');
  return Number(length);
}

/**
 * Parses and checks the JSON text: known dtypes, shapes that match their byte ranges, ranges that tile the data without
 * hole or overlap, a file that is neither shorter nor longer. Throws an MbridgeError that names what is wrong.
 */
export function parseHeader(json: Uint8Array, file: string, fileBytes: number): SafetensorsHeader {
  const start = LENGTH_BYTES + json.length;
  const { __metadata__: metadata, ...entries } = parseJson(json, file);
  const tensors = Object.entries(entries)
    .map(([name, value]) => parseTensor(name, value, start, file))
    .sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = start;
  for (const tensor of tensors) {
    if (tensor.offset !== end) {
      const found = `tensor ${quote(tensor.name)} starts at data byte ${tensor.offset - start}, expected ${end - start}`;
      throw badFile('HEADER', file, `${found} (tensors overlap or leave a hole)`, DAMAGED);
    }
    end += tensor.bytes;
  }
  if (fileBytes < end) throw truncated(file, end, fileBytes);
  if (fileBytes > end) {
    throw badFile('HEADER', file, `${fileBytes} bytes, but its tensors end at byte ${end}`, DAMAGED);
  }
  return { tensors, metadata: parseMetadata(metadata, file), fileBytes };
}

/**
 * Lays out a file: tensors by falling element size (so that each is aligned to it), else in the order given. Returns
 * the first bytes of the file (length and JSON text, padded to 8 bytes) and where every tensor goes.
 */
export function layOut(
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
): { head: Uint8Array; header: SafetensorsHeader } {
  const sorted = [...specs].sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
  let end = 0;
  const placed = sorted.map((spec) => {
    const bytes = elementCount(spec.shape) * DTYPE_BYTES[spec.dtype];
    end += bytes;
    return { ...spec, offset: end - bytes, bytes };
  });
  const members = placed.map(({ name, dtype, shape, offset, bytes }) => {
    return `${quote(name)}:${JSON.stringify({ dtype, shape, data_offsets: [offset, offset + bytes] })}`;
  });
  if (new Set(placed.map(({ name }) => name)).size !== placed.length)
    throw new RangeError('a tensor name is given twice');
  if (Object.keys(metadata).length > 0) members.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const text = Buffer.from(`{${members.join(',')}}`, 'utf8');
  const start = LENGTH_BYTES + Math.ceil(text.length / 8) * 8;
  const head = Buffer.alloc(start, ' ');
  head.writeBigUInt64LE(BigInt(start - LENGTH_BYTES));
  text.copy(head, LENGTH_BYTES);
  const tensors = placed.map((tensor) => ({ ...tensor, offset: start + tensor.offset }));
  return { head, header: { tensors, metadata, fileBytes: start + end } };
}

const NOT_SAFETENSORS = 'this is not a safetensors file';
const DAMAGED = 'the file is damaged; copy or download it again';
const quote = (name: string): string => JSON.stringify(name);

function truncated(file: string, expected: number, found: number, least = ''): Error {
  return badFile('TRUNCATED', file, `truncated: expected ${least}${expected} bytes, found ${found}`, DAMAGED, {
    expected,
    found,
  });
}

function parseJson(json: Uint8Array, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badFile('HEADER', file, `the header is not JSON: ${reason}`, NOT_SAFETENSORS);
  }
  if (isRecord(value)) return value;
  throw badFile('HEADER', file, 'the header is not a JSON object', NOT_SAFETENSORS);
}

function parseTensor(name: string, value: unknown, start: number, file: string): TensorEntry {
  const bad = (found: string): Error => badFile('HEADER', file, `tensor ${quote(name)}: ${found}`, DAMAGED);
  if (!isRecord(value)) throw bad('not a JSON object');
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype))
    throw bad(`unknown dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw bad(`bad shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad(`bad data_offsets ${JSON.stringify(offsets)}`);
  }
  const [from, to] = offsets as [number, number];
  const bytes = elementCount(shape) * DTYPE_BYTES[dtype as SafetensorsDtype];
  if (to - from !== bytes) {
    throw bad(`${dtype} [${shape.join(', ')}] takes ${bytes} bytes, data_offsets give it ${to - from}`);
  }
  return { name, dtype: dtype as SafetensorsDtype, shape, offset: start + from, bytes };
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (value === undefined) return {};
  if (isRecord(value) && Object.values(value).every((text) => typeof text === 'string')) {
    return value as Record<string, string>;
  }
  throw badFile('HEADER', file, '__metadata__ is not a map from string to string', DAMAGED);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

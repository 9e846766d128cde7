import { isPlainObject } from '../../base/plain-object.js';
import type { Span } from './chat-template.js';
import type { TokenizerFolder } from './tokenizer-folder.js';

/** The tokens of a byte-level tokenizer as runs of bytes. */
export interface TokenBytes {
  /** By id, of how many bytes. */
  readonly bytes: Uint32Array;
  /** Whether the text is composed (Unicode NFC) before it is cut. */
  readonly nfc: boolean;
}

/** Undefined where tokens are no runs of bytes, or where the text is changed in more than its composition. */
export function tokenBytes({ tokenizer }: TokenizerFolder, size: number): TokenBytes | undefined {
  const vocab = tokenizer.model['vocab'];
  const normalizers = flatten(tokenizer['normalizer'], 'normalizers');
  const decoders = flatten(tokenizer['decoder'], 'decoders');
  if (!decoders.includes('ByteLevel') || !isPlainObject(vocab)) return undefined;
  if (normalizers.some((type) => type !== 'NFC')) return undefined;
  const bytes = new Uint32Array(size);
  // A byte is one character of the byte-level alphabet.
  for (const [token, id] of Object.entries(vocab) as [string, number][]) bytes[id] = token.length;
  for (const { id, content } of tokenizer.added_tokens) bytes[id] = Buffer.byteLength(content);
  return { bytes, nfc: normalizers.length > 0 };
}

/** The types of a part of a tokenizer that may be a sequence of parts. */
function flatten(part: unknown, key: string): unknown[] {
  if (!isPlainObject(part)) return [];
  const inner = part[key];
  return part['type'] === 'Sequence' && Array.isArray(inner)
    ? inner.flatMap((each) => flatten(each, key))
    : [part['type']];
}

/** 1 for each of `ids` that holds a part of a span of `text`, else 0; undefined where the tokens are not all of the text. */
export function spanMask(
  ids: Int32Array,
  text: string,
  spans: readonly Span[],
  { bytes, nfc }: TokenBytes,
): Uint8Array | undefined {
  const lengthOf = (part: string): number => Buffer.byteLength(nfc ? part.normalize('NFC') : part);
  const places = spans.map(({ start, end }) => [lengthOf(text.slice(0, start)), lengthOf(text.slice(0, end))] as const);
  const mask = new Uint8Array(ids.length);
  let [at, next] = [0, 0];
  ids.forEach((id, i) => {
    const end = at + (bytes[id] as number);
    while ((places[next]?.[1] ?? Infinity) <= at) next++;
    const [from, to] = places[next] ?? [Infinity, Infinity];
    if (from < end && at < to) mask[i] = 1;
    at = end;
  });
  return at === lengthOf(text) ? mask : undefined;
}

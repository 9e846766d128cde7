import { readWords } from './bpe-patterns.js';

/** A value of tokenizer.json that should be an object. */
export type Json = Readonly<Record<string, unknown>> | null | undefined;

/** What the native tokenizer is made from: see `bpeCreate` in src/engine/binding.ts. */
export interface BpeTables {
  readonly tokens: Uint8Array;
  readonly ends: Uint32Array;
  readonly merges: Uint32Array;
  readonly added: Uint32Array;
  readonly pattern: number;
  readonly prefixSpace: boolean;
  readonly ignoreMerges: boolean;
  readonly nfc: boolean;
  /** Ids of the tokens that are no text. */
  readonly special: ReadonlySet<number>;
  /** Added tokens that are looked for before the text is normalized. */
  readonly raw: ReadonlyMap<string, number>;
}

const NORMALIZED = 1;
const NO_WORD = 2;

/** The highest id, which bounds the tables: an absurd one must not fill the memory. */
const MAX_ID = 2 ** 20 - 3;

/** The bytes that the characters of ByteLevel stand for: printable ones for themselves, U+0100 and up for the others. */
function byteAlphabet(): ReadonlyMap<string, number> {
  const alphabet = new Map<string, number>();
  let others = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const itself = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    alphabet.set(String.fromCodePoint(itself ? byte : others++), byte);
  }
  return alphabet;
}

/**
 * The tables of a `tokenizer.json` that holds a byte-level BPE, as GPT-2, Qwen, Llama 3, DeepSeek and GPT-OSS have it; or
 * why the native tokenizer does not serve it. Padding, truncation and the special tokens around a text are left out.
 */
export function readBpe(json: Json): BpeTables | string {
  const model = json?.['model'] as Json;
  if (model?.type !== 'BPE') return 'its model is not BPE';
  for (const key of ['dropout', 'unk_token', 'continuing_subword_prefix', 'end_of_word_suffix', 'byte_fallback']) {
    if (model[key]) return `its model has ${key}`;
  }
  const normalizer = readNormalizer(json?.['normalizer'] as Json);
  if (normalizer === undefined) return 'its normalizer is not NFC';
  const words = readWords(json?.['pre_tokenizer'] as Json);
  if (typeof words === 'string') return words;
  if ((json?.['decoder'] as Json)?.type !== 'ByteLevel') return 'its decoder is not ByteLevel';
  const vocabulary = model['vocab'] as Json;
  const merges = model['merges'];
  if (typeof vocabulary !== 'object' || vocabulary === null || !Array.isArray(merges)) return 'it has no vocabulary';

  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocabulary)) {
    if (!isId(id)) return `token ${JSON.stringify(token)} has no id from 0 to ${MAX_ID}`;
    ids.set(token, id);
  }
  const added = readAdded(json?.['added_tokens'], ids, normalizer);
  if (typeof added === 'string') return added;
  const pairs = readMerges(merges, ids);
  if (typeof pairs === 'string') return pairs;
  const bytes = readBytes(ids, added);
  if (typeof bytes === 'string') return bytes;
  return {
    ...bytes,
    ...words,
    merges: pairs,
    added: Uint32Array.from(added.flatMap(({ id, kind }) => [id, kind])),
    ignoreMerges: model['ignore_merges'] === true,
    nfc: normalizer,
    special: new Set(added.filter(({ special }) => special).map(({ id }) => id)),
    raw: new Map(added.filter(({ kind }) => (kind & NORMALIZED) === 0).map(({ content, id }) => [content, id])),
  };
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_ID;
}

/** Whether it is NFC; undefined where it is something else. */
function readNormalizer(json: Json): boolean | undefined {
  if (json === null || json === undefined) return false;
  if (json['type'] === 'NFC') return true;
  const all = json['type'] === 'Sequence' && Array.isArray(json['normalizers']) ? json['normalizers'] : undefined;
  if (all === undefined || all.length > 1) return undefined;
  return all.length === 1 ? readNormalizer(all[0] as Json) : false;
}

interface Added {
  readonly id: number;
  readonly content: string;
  readonly kind: number;
  readonly special: boolean;
}

function readAdded(json: unknown, ids: ReadonlyMap<string, number>, nfc: boolean): Added[] | string {
  const found: Added[] = [];
  let next = ids.size;
  for (const token of Array.isArray(json) ? (json as Json[]) : []) {
    const { content, id } = token ?? {};
    if (typeof content !== 'string' || content === '' || !isId(id)) return 'it has an added token without text or id';
    const name = `added token ${JSON.stringify(content)}`;
    if (token?.['lstrip'] || token?.['rstrip'] || token?.['single_word']) {
      return `${name} has lstrip, rstrip or single_word`;
    }
    const known = ids.get(content);
    // Hugging Face numbers those that are not in the vocabulary itself, whatever the file says.
    if (id !== (known ?? next)) return `${name} has id ${id}, and Hugging Face gives it ${known ?? next}`;
    next = Math.max(next, id + 1);
    const normalized = token?.['normalized'] === true;
    if (normalized && nfc && content.normalize('NFC') !== content) return `${name} is changed by its normalizer`;
    const kind = (normalized ? NORMALIZED : 0) + (known === undefined ? NO_WORD : 0);
    found.push({ id, content, kind, special: token?.['special'] === true });
  }
  return found;
}

function readMerges(list: readonly unknown[], ids: ReadonlyMap<string, number>): Uint32Array | string {
  const merges = new Uint32Array(3 * list.length);
  for (const [i, merge] of list.entries()) {
    const parts = typeof merge === 'string' ? merge.split(' ') : Array.isArray(merge) ? (merge as unknown[]) : [];
    const [left, right, more] = parts as (string | undefined)[];
    const three = [left, right, `${left}${right}`].map((token) => ids.get(token as string));
    if (more !== undefined || three.includes(undefined)) {
      return `merge ${i}, ${JSON.stringify(merge)}, is not of two tokens that make a third`;
    }
    merges.set(three as number[], 3 * i);
  }
  return merges;
}

/** The bytes of all tokens, in the order of their ids. */
function readBytes(
  ids: ReadonlyMap<string, number>,
  added: readonly Added[],
): Pick<BpeTables, 'tokens' | 'ends'> | string {
  const alphabet = byteAlphabet();
  const tokens: (Uint8Array | undefined)[] = [];
  for (const { id, content } of added) tokens[id] = Buffer.from(content, 'utf8');
  const own = new Set(added.map(({ id }) => id));
  for (const [token, id] of ids) {
    if (own.has(id)) continue;
    if (tokens[id] !== undefined) return `two tokens have id ${id}`;
    const bytes = Array.from(token, (character) => alphabet.get(character));
    if (bytes.includes(undefined)) return `token ${JSON.stringify(token)} is not made of bytes`;
    tokens[id] = Uint8Array.from(bytes as number[]);
  }
  const all = Array.from(tokens, (token) => token ?? new Uint8Array(0));
  let end = 0;
  return { tokens: Buffer.concat(all), ends: Uint32Array.from(all, (token) => (end += token.length)) };
}

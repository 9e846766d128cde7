import { isPlainObject } from '../../base/plain-object.js';
import { badUtf8At } from '../../base/utf8.js';
import type { Tokenizer } from '../tokenizer.js';
import type { Block } from './blocks.js';

/** What is no document, by its place among the lines (or rows) of its block. */
export interface BadItem {
  readonly index: number;
  readonly found: string;
}

/** The documents of a block. */
export interface TokenizedBlock {
  /** Of all documents, one after the other. */
  readonly tokens: Int32Array<ArrayBuffer>;
  readonly lengths: Int32Array<ArrayBuffer>;
  /** Lines or rows that the block has; 1 of a whole file. */
  readonly items: number;
  readonly bad: readonly BadItem[];
  /** Texts without a character, which are no documents. */
  readonly empty: number;
}

export interface BlockSettings {
  /** Of the objects in lines. */
  readonly field: string;
  readonly appendEod: boolean;
}

const NEWLINE = 0x0a;

/** Tokenises the texts of a block, each on its own. Never throws for what is in them. */
export function tokenizeBlock(block: Block, tokenizer: Tokenizer, { field, appendEod }: BlockSettings): TokenizedBlock {
  const documents: ArrayLike<number>[] = [];
  const bad: BadItem[] = [];
  let [items, empty] = [0, 0];
  for (const item of textsOf(block, field)) {
    const index = items++;
    if (item === undefined) continue;
    if (typeof item === 'object') bad.push({ index: index + (item.line ?? 0), found: item.found });
    else if (item === '') empty++;
    else documents.push(tokenizer.encode(item));
  }
  return { ...joined(documents, appendEod ? [tokenizer.endOfDocument] : []), items, bad, empty };
}

/** Documents one after the other, `end` behind each. */
export function joined(
  documents: readonly ArrayLike<number>[],
  end: readonly number[],
): Pick<TokenizedBlock, 'tokens' | 'lengths'> {
  const lengths = Int32Array.from(documents, ({ length }) => length + end.length);
  const tokens = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  documents.forEach((document, i) => {
    tokens.set(document, at);
    tokens.set(end, at + document.length);
    at += lengths[i] as number;
  });
  return { tokens, lengths };
}

/** A text; what is wrong; undefined for a blank line. */
type Item = string | { readonly found: string; readonly line?: number } | undefined;

function* textsOf(block: Block, field: string): Generator<Item> {
  if (block.kind === 'values') {
    for (const value of block.values) yield textOf(value, `"${field}"`);
  } else if (block.kind === 'document') {
    yield decoded(block.bytes);
  } else {
    for (const line of valuesOf(block.bytes)) {
      yield line !== undefined && 'value' in line ? lineText(line.value, field) : line;
    }
  }
}

type Line = { readonly value: unknown } | { readonly found: string; readonly line?: number } | undefined;

/** What each line says as JSON; what is wrong with it; undefined for a blank one. */
export function* valuesOf(bytes: Uint8Array): Generator<Line> {
  for (let start = 0; start < bytes.length;) {
    const at = bytes.indexOf(NEWLINE, start);
    const end = at < 0 ? bytes.length : at;
    yield valueOf(bytes.subarray(start, end));
    start = end + 1;
  }
}

function valueOf(bytes: Uint8Array): Line {
  const line = decoded(bytes);
  if (typeof line !== 'string') return line;
  if (line.trim() === '') return undefined;
  try {
    return { value: JSON.parse(line) as unknown };
  } catch (cause) {
    return { found: `bad JSON: ${cause instanceof Error ? cause.message : String(cause)}` };
  }
}

function lineText(value: unknown, field: string): Item {
  if (typeof value === 'string') return textOf(value, 'the line');
  if (!isPlainObject(value)) return { found: 'no JSON object' };
  return textOf(value[field], `"${field}"`);
}

function textOf(value: unknown, what: string): Item {
  if (typeof value !== 'string') return { found: value == null ? `no ${what}` : `${what} is no text` };
  // With the u flag a whole pair is one character.
  if (/\p{Surrogate}/u.test(value)) return { found: `${what} has half a character (a lone surrogate)` };
  return value;
}

function decoded(bytes: Uint8Array): string | { readonly found: string; readonly line?: number } {
  const bad = badUtf8At(bytes);
  if (bad >= 0) {
    const before = bytes.subarray(0, bad);
    const line = before.reduce((lines, byte) => lines + Number(byte === NEWLINE), 0);
    const place = bad - before.lastIndexOf(NEWLINE) - 1;
    return { found: `not UTF-8 at byte ${place} of the line (0x${(bytes[bad] as number).toString(16)})`, line };
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
}

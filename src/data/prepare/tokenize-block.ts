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
  const documents: (Uint8Array | Int32Array)[] = [];
  const bad: BadItem[] = [];
  let [items, empty, total] = [0, 0, 0];
  for (const item of textsOf(block, field)) {
    const index = items++;
    if (item === undefined) continue;
    if (typeof item === 'object') bad.push({ index: index + (item.line ?? 0), found: item.found });
    else if (item === '') empty++;
    else {
      const tokens = tokenizer.encode(item);
      documents.push(tokens);
      total += tokens.length + Number(appendEod);
    }
  }
  const tokens = new Int32Array(total);
  let at = 0;
  for (const document of documents) {
    tokens.set(document, at);
    at += document.length;
    if (appendEod) tokens[at++] = tokenizer.endOfDocument;
  }
  const lengths = Int32Array.from(documents, ({ length }) => length + Number(appendEod));
  return { tokens, lengths, items, bad, empty };
}

/** A text; what is wrong; undefined for a blank line. */
type Item = string | { readonly found: string; readonly line?: number } | undefined;

function* textsOf(block: Block, field: string): Generator<Item> {
  if (block.kind === 'values') {
    for (const value of block.values) yield textOf(value, `"${field}"`);
  } else if (block.kind === 'document') {
    yield decoded(block.bytes);
  } else {
    const { bytes } = block;
    for (let start = 0; start < bytes.length;) {
      const at = bytes.indexOf(NEWLINE, start);
      const end = at < 0 ? bytes.length : at;
      yield lineText(bytes.subarray(start, end), field);
      start = end + 1;
    }
  }
}

function lineText(bytes: Uint8Array, field: string): Item {
  const line = decoded(bytes);
  if (typeof line !== 'string') return line;
  if (line.trim() === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    return { found: `bad JSON: ${cause instanceof Error ? cause.message : String(cause)}` };
  }
  if (typeof value === 'string') return textOf(value, 'the line');
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { found: 'no JSON object' };
  return textOf((value as Record<string, unknown>)[field], `"${field}"`);
}

function textOf(value: unknown, what: string): Item {
  if (typeof value !== 'string') return { found: value == null ? `no ${what}` : `${what} is no text` };
  // With the u flag a whole pair is one character.
  if (/\p{Surrogate}/u.test(value)) return { found: `${what} has half a character (a lone surrogate)` };
  return value;
}

function decoded(bytes: Uint8Array): Item {
  const bad = badUtf8At(bytes);
  if (bad >= 0) {
    const before = bytes.subarray(0, bad);
    const line = before.reduce((lines, byte) => lines + Number(byte === NEWLINE), 0);
    const place = bad - before.lastIndexOf(NEWLINE) - 1;
    return { found: `not UTF-8 at byte ${place} of the line (0x${(bytes[bad] as number).toString(16)})`, line };
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
}

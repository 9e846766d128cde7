import type { NativeBinding } from '../../engine/binding.js';
import { readBpe, type BpeTables, type Json } from './bpe-file.js';
import { nfc } from './nfc.js';

/** The part of the native addon that encodes text. */
export type BpeBinding = Pick<NativeBinding, 'bpeCreate' | 'bpeFree' | 'bpeEncode' | 'bpeCount' | 'bpeDecode'>;

/** A byte-level BPE in native code, with the ids of Hugging Face's tokenizers. One thread's; other threads make their own. */
export class BpeTokenizer {
  readonly #native: BpeBinding;
  readonly #handle: number;
  readonly #special: ReadonlySet<number>;
  readonly #raw: ReadonlyMap<string, number>;
  readonly #aroundRaw: RegExp | undefined;
  /** One more than the highest id. */
  readonly vocabSize: number;

  constructor(native: BpeBinding, tables: BpeTables) {
    const { prefixSpace, ignoreMerges, nfc: normalizes, raw } = tables;
    const flags = (prefixSpace ? 1 : 0) + (ignoreMerges ? 2 : 0) + (normalizes ? 4 : 0);
    this.#native = native;
    this.#special = tables.special;
    this.#raw = raw;
    // The leftmost, and of those the longest.
    const contents = [...raw.keys()].sort((a, b) => b.length - a.length);
    const escaped = contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`));
    this.#aroundRaw = escaped.length === 0 ? undefined : new RegExp(`(${escaped.join('|')})`, 'u');
    this.vocabSize = tables.ends.length;
    this.#handle = native.bpeCreate(tables.tokens, tables.ends, tables.merges, tables.added, tables.pattern, flags);
  }

  /**
   * Ids of a text, without special tokens around it; those that the text spells out are taken as such. A lone surrogate
   * counts as U+FFFD.
   * @throws Error MB_ARGUMENT for bytes that are not UTF-8, and for more than 2 GiB
   */
  encode(text: string | Uint8Array): Int32Array {
    const bytes = typeof text === 'string' ? Buffer.from(text, 'utf8') : text;
    const ids = this.#native.bpeEncode(this.#handle, bytes, false);
    if (ids !== null) return ids;
    const parts = this.#normalized(bytes).map((part) =>
      typeof part === 'number' ? Int32Array.of(part) : this.#native.bpeEncode(this.#handle, part, true),
    );
    const all = new Int32Array(parts.reduce((sum, part) => sum + (part?.length ?? 0), 0));
    let at = 0;
    for (const part of parts) {
      if (part !== null) all.set(part, at);
      at += part?.length ?? 0;
    }
    return all;
  }

  /** How many ids {@link encode} gives. */
  count(text: string | Uint8Array): number {
    const bytes = typeof text === 'string' ? Buffer.from(text, 'utf8') : text;
    return this.#native.bpeCount(this.#handle, bytes, false) ?? this.encode(bytes).length;
  }

  /** The bytes of tokens put end to end. An id without a token, which a padded vocabulary has, stands for nothing. */
  decodeBytes(ids: ArrayLike<number>, skipSpecial = false): Uint8Array {
    const all = Int32Array.from(ids);
    return this.#native.bpeDecode(this.#handle, skipSpecial ? all.filter((id) => !this.#special.has(id)) : all);
  }

  /** The text of tokens; U+FFFD for what is no UTF-8. */
  decode(ids: ArrayLike<number>, skipSpecial = false): string {
    return Buffer.from(this.decodeBytes(ids, skipSpecial)).toString('utf8');
  }

  /** Gives the native memory back; every later call throws MB_ARGUMENT. */
  dispose(): void {
    this.#native.bpeFree(this.#handle);
  }

  /** Ids of the added tokens that are looked for in the text as it is, and the normalized text between them. */
  #normalized(bytes: Uint8Array): (number | Uint8Array)[] {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
    const parts = this.#aroundRaw === undefined ? [text] : text.split(this.#aroundRaw);
    return parts.map((part, i) => (i % 2 === 1 ? (this.#raw.get(part) as number) : Buffer.from(nfc(part), 'utf8')));
  }
}

/** The native tokenizer of a parsed `tokenizer.json`, or the reason why it does not serve it: another one must. */
export function createBpe(json: unknown, native: BpeBinding): BpeTokenizer | { readonly reason: string } {
  const tables = readBpe(json as Json);
  return typeof tables === 'string' ? { reason: tables } : new BpeTokenizer(native, tables);
}

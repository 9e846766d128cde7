import * as library from '@huggingface/tokenizers';
import { MbridgeError } from '../../base/errors.js';
import { loadBinding } from '../../engine/load.js';
import { createBpe } from './bpe.js';
import { inPieces } from './in-pieces.js';
import { isPlainObject } from '../../base/plain-object.js';
import type { TokenizerFolder } from './tokenizer-folder.js';

/** What is used of the library, whose own types TypeScript does not find from an ES module. */
interface Library {
  readonly Tokenizer: new (
    tokenizer: object,
    config: object,
  ) => {
    encode(text: string, options: { add_special_tokens: boolean }): { readonly ids: number[] };
    decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  };
}

const { Tokenizer } = library as unknown as Library;

/** What turns text into ids, without the special tokens that stand around a text. */
export interface TokenizerEngine {
  readonly name: string;
  encode(text: string): Int32Array;
  decode(ids: readonly number[], skipSpecial: boolean): string;
}

/** The tokens that a tokenizer puts around every text. */
export interface Surroundings {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

/** The native engine where it is there and knows the tokenizer, since it is some fifty times faster; else JavaScript's. */
export function openEngine(folder: TokenizerFolder): TokenizerEngine {
  const native = nativeEngine(folder);
  if (native !== undefined) return native;
  return javascriptEngine(folder);
}

function nativeEngine(folder: TokenizerFolder): TokenizerEngine | undefined {
  let binding;
  try {
    binding = loadBinding();
  } catch (error) {
    // Tokenising needs no engine that trains.
    if (error instanceof MbridgeError) return undefined;
    throw error;
  }
  const bpe = createBpe(folder.tokenizer, binding);
  if ('reason' in bpe) return undefined;
  return {
    name: 'native',
    encode: (text) => bpe.encode(text),
    decode: (ids, skipSpecial) => bpe.decode(ids, skipSpecial),
  };
}

/**
 * The tokens around every text. A post-processor that adds none needs no engine to say so.
 * @throws MbridgeError as {@link javascriptEngine} does
 */
export function surroundingsOf(folder: TokenizerFolder): Surroundings {
  const post = folder.tokenizer['post_processor'];
  const none = post === null || post === undefined || (isPlainObject(post) && post['type'] === 'ByteLevel');
  return none ? { before: [], after: [] } : javascriptEngine(folder).around;
}

/**
 * The engine that serves every tokenizer.json: Hugging Face's own in JavaScript.
 * @throws MbridgeError MB_TOKENIZER_UNSUPPORTED (exit 3) where it does not know a part of the tokenizer
 */
export function javascriptEngine(folder: TokenizerFolder): TokenizerEngine & { readonly around: Surroundings } {
  const { tokenizer, config, path } = folder;
  let engine: InstanceType<Library['Tokenizer']>;
  try {
    // What is absent counts as null.
    const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
    engine = new Tokenizer({ ...parts, ...tokenizer }, { ...config });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new MbridgeError(
      'config',
      'MB_TOKENIZER_UNSUPPORTED',
      `${path}: tokenizer.json is not understood: ${reason}`,
      {
        hint: 'use another tokenizer, or dataset.type: jsonl with "input_ids" that are tokenised already',
        details: { path },
        cause,
      },
    );
  }
  // As transformers: of other models it would take blanks away that the text had.
  const cleanUp = config['clean_up_tokenization_spaces'] === true && tokenizer.model['type'] === 'WordPiece';
  const ids = (text: string, special: boolean): number[] => {
    return engine.encode(text, { add_special_tokens: special }).ids;
  };
  return {
    name: 'javascript',
    around: surroundings(ids('a', false), ids('a', true)),
    encode: inPieces((text) => (text === '' ? new Int32Array(0) : Int32Array.from(ids(text, false))), folder),
    decode: (tokens, skipSpecial) =>
      tokens.length === 0
        ? ''
        : engine.decode([...tokens], { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: cleanUp }),
  };
}

function surroundings(plain: readonly number[], full: readonly number[]): Surroundings {
  const extra = full.length - plain.length;
  for (let at = 0; at <= extra; at++) {
    if (plain.every((id, j) => full[at + j] === id)) {
      return { before: full.slice(0, at), after: full.slice(at + plain.length) };
    }
  }
  return { before: [], after: [] };
}

import type { TokenizerConfig } from '../config/schema.js';
import { MbridgeError } from '../base/errors.js';

/** Text to tokens and back. */
export interface Tokenizer {
  readonly name: string;
  /** The same for tokenizers that give every text the same ids. */
  readonly identity: string;
  /** Every token is in [0, vocabSize). */
  readonly vocabSize: number;
  /** Stands between two documents that are put end to end, and in none of them. */
  readonly endOfDocument: number;
  /** Bytes of text that each token stands for, by id: 0 for those that are no text. Absent where that is not known. */
  readonly tokenBytes?: ArrayLike<number> | undefined;
  /** @param options.specialTokens false leaves out the tokens that it puts around a text */
  encode(text: string, options?: { readonly specialTokens?: boolean }): Uint8Array | Int32Array;
  /** Number of tokens of `encode(text)`. */
  count(text: string): number;
  /** @param options.skipSpecialTokens leaves out the tokens that are no text */
  decode(tokens: ArrayLike<number>, options?: { readonly skipSpecialTokens?: boolean }): string;
}

/** A byte that no UTF-8 text has: the vocabulary need not grow for it. */
const END_OF_DOCUMENT = 0xff;

/** One token per UTF-8 byte; a vocabulary of 256. */
export function byteTokenizer(): Tokenizer {
  return {
    name: 'byte',
    identity: 'byte',
    vocabSize: 256,
    endOfDocument: END_OF_DOCUMENT,
    tokenBytes: Uint8Array.from({ length: 256 }, (_, token) => Number(token !== END_OF_DOCUMENT)),
    encode: (text) => Buffer.from(text, 'utf8'),
    count: (text) => Buffer.byteLength(text, 'utf8'),
    decode: (tokens) => {
      const texts = Array.from(tokens).filter((token) => token !== END_OF_DOCUMENT);
      return Buffer.from(texts).toString('utf8');
    },
  };
}

/**
 * The tokenizer with which a run reads texts: bytes. What takes another one is tokenised before, so that no rank loads it.
 * @throws MbridgeError exit 3
 */
export function createTokenizer(cfg: TokenizerConfig, vocabSize: number): Tokenizer {
  if (cfg.type !== 'byte') {
    throw new MbridgeError(
      'config',
      'MB_TOKENIZER_UNSUPPORTED',
      `tokenizer.type: ${cfg.type} reads no texts in a run`,
      {
        hint: 'tokenise them first (mbridge data prepare), or use tokenizer.type: byte',
      },
    );
  }
  const tokenizer = byteTokenizer();
  checkVocabulary(tokenizer, vocabSize);
  return tokenizer;
}

/** Refuses a tokenizer with ids that a model of `vocabSize` does not have (config error, exit 3). */
export function checkVocabulary(tokenizer: Pick<Tokenizer, 'name' | 'vocabSize'>, vocabSize: number): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new MbridgeError(
    'config',
    'MB_TOKENIZER_VOCAB',
    `the tokenizer ${tokenizer.name} has ${tokenizer.vocabSize} tokens, the model's vocabulary only ${vocabSize}`,
    { hint: `set model.vocab_size to at least ${tokenizer.vocabSize}`, details: { vocabSize } },
  );
}

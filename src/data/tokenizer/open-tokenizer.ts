import type { TokenizerConfig } from '../../config/schema.js';
import { MbridgeError } from '../../base/errors.js';
import { byteTokenizer, checkVocabulary, type Tokenizer } from '../tokenizer.js';
import { HuggingFaceTokenizer } from './huggingface-tokenizer.js';

/**
 * The tokenizer that a command line names: `byte`, or a Hugging Face folder (`./byte` for one of that name).
 * @param options.eod content of the token between documents; default: eos_token of tokenizer_config.json
 * @throws MbridgeError as HuggingFaceTokenizer.open does
 */
export function openTokenizer(named: string, options: { readonly eod?: string | undefined } = {}): Tokenizer {
  if (named !== 'byte') return HuggingFaceTokenizer.open(named, options);
  if (options.eod !== undefined) {
    throw new MbridgeError('config', 'MB_TOKENIZER_EOD', `the byte tokenizer has no token ${options.eod}`, {
      hint: 'leave --eod out: 255, a byte that no text has, ends a document',
    });
  }
  return byteTokenizer();
}

/**
 * The tokenizer of a configuration, for a process that makes tokens before ranks are started.
 * @throws MbridgeError as HuggingFaceTokenizer.open does; MB_TOKENIZER_VOCAB where the model has too few ids
 */
export function openConfigured(config: TokenizerConfig, vocabSize: number): Tokenizer {
  const tokenizer = config.type === 'byte' ? byteTokenizer() : HuggingFaceTokenizer.open(config.path);
  checkVocabulary(tokenizer, vocabSize);
  return tokenizer;
}

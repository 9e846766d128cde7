import { MbridgeError } from '../../base/errors.js';
import { byteTokenizer, type Tokenizer } from '../tokenizer.js';
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

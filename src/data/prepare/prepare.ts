import { packageVersion } from '../../base/package-root.js';
import { MbridgeError } from '../../base/errors.js';
import { badData } from '../data-error.js';
import { typeFor } from '../indexed/format.js';
import { ChatTokenizer } from './chat-tokenizer.js';
import type { Tokenizer } from '../tokenizer.js';
import { openTokenizer } from '../tokenizer/open-tokenizer.js';
import type { Inputs } from './input-files.js';
import { makeParts, type PartsProgress } from './make-parts.js';
import { isWhole, joinPairs, refuseExisting } from './join-pairs.js';
import { packTokenBytes, readSidecar, type Sidecar } from '../indexed/sidecar.js';
import { Staging } from './staging.js';

export interface PrepareOptions {
  readonly inputs: Inputs;
  /** `byte`, or a Hugging Face folder. */
  readonly tokenizer: string;
  /** Content of the token that ends a document. */
  readonly eod?: string | undefined;
  readonly appendEod: boolean;
  /** Lines are conversations (see {@link Sidecar}); nothing stands between them. */
  readonly chat?: boolean;
  /** Of JSON objects and tables: where the text stands. */
  readonly field: string;
  /** Prefix of the pair. */
  readonly output: string;
  readonly workers: number;
  /** Ends at the first line that is no document. */
  readonly strict: boolean;
  /** Takes a pair that is there for the one that is asked for; else it is refused. */
  readonly reuse?: boolean;
  readonly progress: PartsProgress;
}

/**
 * Makes a pair of Megatron's, PREFIX.bin and PREFIX.idx, and PREFIX.json out of texts: every document tokenised on its
 * own, in the order of the files' paths, the same bytes whatever the number of threads. What was done stays in
 * PREFIX.parts when it ends early, and the next call with the same settings goes on.
 * @throws MbridgeError exit 3 or 7
 */
export async function prepare(options: PrepareOptions): Promise<Sidecar> {
  const { inputs, output, field, chat = false, reuse = false } = options;
  const appendEod = options.appendEod && !chat;
  const content = chat ? 'chat' : 'text';
  if (!reuse) refuseExisting(output);
  const tokenizer = openTokenizer(options.tokenizer, { eod: options.eod });
  if (chat) checkChat(inputs, tokenizer);
  const eod = appendEod ? tokenizer.endOfDocument : null;
  const dtype = typeFor(tokenizer.vocabSize);
  const staging = new Staging(output, [1, packageVersion(), tokenizer.identity, eod, field, dtype, content]);
  try {
    // Another process may have made it while this one waited for the claim.
    const made = reuse && isWhole(output) ? readSidecar(output) : undefined;
    if (made !== undefined) {
      staging.remove();
      return made;
    }
    const parts = await makeParts({ ...options, appendEod, chat, staging, dtype });
    const sum = (key: 'documents' | 'tokens' | 'bad' | 'empty'): number => {
      return parts.reduce((total, { record }) => total + record[key], 0);
    };
    if (sum('documents') === 0) {
      const found = `no ${chat ? 'conversations' : 'documents'} in ${inputs.files.length} files (${sum('bad')} bad lines, ${sum('empty')} empty texts)`;
      throw badData(
        'MB_DATA_EMPTY',
        inputs.files[0]?.path ?? '--input',
        found,
        'give files with texts; --field names where they stand',
      );
    }
    const sidecar: Sidecar = {
      format: 1,
      mbridge: packageVersion(),
      content,
      tokenizer: { name: tokenizer.name, identity: tokenizer.identity, vocab_size: tokenizer.vocabSize },
      ...{
        eod,
        field,
        dtype,
        documents: sum('documents'),
        tokens: sum('tokens'),
        bad: sum('bad'),
        empty: sum('empty'),
      },
      inputs: inputs.files.map(({ path, bytes }) => ({ path, bytes })),
      token_bytes: packTokenBytes(tokenizer.tokenBytes),
    };
    await joinPairs(
      parts.filter(({ record }) => record.documents > 0).map(({ prefix }) => prefix),
      output,
      staging.folder,
      sidecar,
    );
    staging.remove();
    return sidecar;
  } catch (error) {
    staging.release();
    throw error;
  }
}

/** Before threads are started: each would say the same. */
function checkChat({ files }: Inputs, tokenizer: Tokenizer): void {
  ChatTokenizer.of(tokenizer);
  const other = files.find(({ kind }) => kind !== 'lines');
  if (other === undefined) return;
  throw new MbridgeError('io', 'MB_DATA_INPUT', `${other.path}: conversations are read from .jsonl files only`, {
    hint: 'write {"messages": [...]} a line',
    details: { path: other.path },
  });
}

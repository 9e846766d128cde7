import { packageVersion } from '../../base/package-root.js';
import { badData } from '../data-error.js';
import { typeFor } from '../indexed/format.js';
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
  const { inputs, output, field, appendEod, reuse = false } = options;
  if (!reuse) refuseExisting(output);
  const tokenizer = openTokenizer(options.tokenizer, { eod: options.eod });
  const eod = appendEod ? tokenizer.endOfDocument : null;
  const dtype = typeFor(tokenizer.vocabSize);
  const staging = new Staging(output, [1, packageVersion(), tokenizer.identity, eod, field, dtype]);
  try {
    // Another process may have made it while this one waited for the claim.
    const made = reuse && isWhole(output) ? readSidecar(output) : undefined;
    if (made !== undefined) {
      staging.remove();
      return made;
    }
    const parts = await makeParts({ ...options, staging, dtype });
    const sum = (key: 'documents' | 'tokens' | 'bad' | 'empty'): number => {
      return parts.reduce((total, { record }) => total + record[key], 0);
    };
    if (sum('documents') === 0) {
      const found = `no documents in ${inputs.files.length} files (${sum('bad')} bad lines, ${sum('empty')} empty texts)`;
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
      parts.map(({ prefix }) => prefix),
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

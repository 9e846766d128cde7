import { closeSync, fsyncSync, openSync, renameSync, writeFileSync, existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { makeFolder } from '../../base/make-folder.js';
import { packageVersion } from '../../base/package-root.js';
import { badData } from '../data-error.js';
import { dtypeFor, writeError } from '../indexed/format.js';
import { IndexedReader } from '../indexed/reader.js';
import { IndexedWriter } from '../indexed/writer.js';
import { openTokenizer } from '../tokenizer/open-tokenizer.js';
import type { Inputs } from './input-files.js';
import { makeParts, type PartsProgress } from './make-parts.js';
import { sidecarText, type Sidecar } from './sidecar.js';
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
  readonly progress: PartsProgress;
}

/**
 * Makes a pair of Megatron's, PREFIX.bin and PREFIX.idx, and PREFIX.json out of texts: every document tokenised on its
 * own, in the order of the files' paths, the same bytes whatever the number of threads. What was done stays in
 * PREFIX.parts when it ends early, and the next call with the same settings goes on.
 * @throws MbridgeError exit 3 or 7
 */
export async function prepare(options: PrepareOptions): Promise<Sidecar> {
  const { inputs, output, field, appendEod } = options;
  refuseExisting(output);
  const tokenizer = openTokenizer(options.tokenizer, { eod: options.eod });
  const eod = appendEod ? tokenizer.endOfDocument : null;
  const dtype = dtypeFor(tokenizer.vocabSize);
  const staging = new Staging(output, [1, packageVersion(), tokenizer.identity, eod, field, dtype]);
  try {
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

/** @throws MbridgeError MB_DATA_EXISTS (exit 7) */
export function refuseExisting(output: string): void {
  const found = ['idx', 'bin', 'json'].map((ending) => `${output}.${ending}`).find((path) => existsSync(path));
  if (found === undefined) return;
  throw new MbridgeError('io', 'MB_DATA_EXISTS', `${found} exists`, {
    hint: 'name another --output, or remove it with its .bin, .idx and .json',
    details: { path: found },
  });
}

/**
 * Puts pairs end to end and gives the three files their names, the index last: a pair is there when its index is.
 * @param folder on the same disk, where they grow
 */
export async function joinPairs(
  prefixes: readonly string[],
  output: string,
  folder: string,
  sidecar: Sidecar,
): Promise<void> {
  const temporary = join(folder, 'all');
  const writer = IndexedWriter.create(temporary, { dtype: sidecar.dtype });
  try {
    for (const prefix of prefixes) {
      const reader = new IndexedReader(prefix);
      try {
        for (let i = 0; i < reader.lengths.length; i++) writer.add(reader.sequence(i));
      } finally {
        reader.close();
      }
    }
    await writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  try {
    makeFolder(dirname(resolve(output)));
    writeFileSync(`${temporary}.json`, sidecarText(sidecar), { flush: true });
    for (const ending of ['json', 'bin', 'idx']) renameSync(`${temporary}.${ending}`, `${output}.${ending}`);
    syncFolder(dirname(resolve(output)));
  } catch (cause) {
    throw writeError(output, cause);
  }
}

function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

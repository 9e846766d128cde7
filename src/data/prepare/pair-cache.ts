import { createHash } from 'node:crypto';
import { rmSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MbridgeError } from '../../base/errors.js';
import { shellWord } from '../../base/shell-word.js';
import { badData, unreadable } from '../data-error.js';
import { DataFile, HASHED_BYTES } from '../data-file.js';
import { kindOf, type InputFile } from './input-files.js';
import { isWhole } from './join-pairs.js';
import { Progress } from './progress.js';

/** Part of every name: raised when the same text would give other files. */
const FORMAT = 1;
const WAIT_MS = 500;

/** A file of texts that a run names. */
export interface TextSource {
  readonly path: string;
  readonly kind: 'text' | 'lines';
  /** Whether lines are conversations. */
  readonly chat: boolean;
  /** Of JSON objects: where the text stands. */
  readonly field: string;
}

/** The tokenizer that it is to be read with. */
export interface CacheTokenizer {
  readonly path: string;
  readonly identity: string;
  /** Content of the token that ends a document; undefined where it names none. */
  readonly eod: string | undefined;
  /** All that decides how conversations are written; undefined of a tokenizer of texts only. */
  readonly template: unknown;
}

/**
 * The token files of a text, `FILE.mbridge/NAME` beside it: those that are there, else they are made. What decides the
 * tokens decides the name, so that another content or tokenizer makes other files. Of processes that ask at once, one
 * makes them and the others wait.
 * @param options.make false where the files must be there already
 * @returns the pair's prefix
 * @throws MbridgeError exit 3 or 7 as prepare does; MB_DATA_UNPREPARED (exit 7) where they may not be made
 */
export async function cachedPair(
  source: TextSource,
  tokenizer: CacheTokenizer,
  { make }: { readonly make: boolean },
): Promise<string> {
  const file = inputOf(source);
  const folder = `${resolve(source.path)}.mbridge`;
  const prefix = join(folder, nameOf(source, file, tokenizer));
  if (isWhole(prefix)) return prefix;
  if (!make) throw unprepared(source, prefix, tokenizer);
  process.stderr.write(`${source.path}: making tokens of it with ${tokenizer.path}, once, in ${folder}\n`);
  try {
    await makePair(source, file, prefix, tokenizer);
  } catch (cause) {
    throw cause instanceof MbridgeError && cause.code === 'MB_DATA_WRITE'
      ? notWritable(cause, source, tokenizer)
      : cause;
  }
  const { bytes, mtimeMs } = inputOf(source);
  if (bytes !== file.bytes || mtimeMs !== file.mtimeMs) {
    for (const ending of ['idx', 'bin', 'json']) rmSync(`${prefix}.${ending}`, { force: true });
    const hint = 'do not change a data file while it is read, and start again';
    throw badData('MB_DATA_CHANGED', source.path, 'changed while its tokens were made', hint);
  }
  return prefix;
}

async function makePair(
  source: TextSource,
  file: InputFile,
  prefix: string,
  { path: tokenizer, eod }: CacheTokenizer,
): Promise<void> {
  // Its readers of files take memory that a run without texts has no use for.
  const { prepare } = await import('./prepare.js');
  const progress = new Progress([file], process.stderr);
  const made = await whenFree(prefix, () =>
    prepare({
      ...{ inputs: { files: [file], others: [] }, output: prefix, reuse: true },
      ...{ tokenizer, eod: source.chat ? undefined : eod, appendEod: source.kind !== 'text', ...source },
      ...{ workers: availableParallelism(), strict: true, progress },
    }),
  ).finally(() => progress.end());
  const count = (n: number): string => n.toLocaleString('en-US');
  const { tokens, documents: written } = made;
  const documents = source.chat ? `${count(written / 2)} conversations` : `${count(written)} documents`;
  process.stderr.write(
    `${source.path}: ${count(source.chat ? tokens / 2 : tokens)} tokens in ${documents}, ${progress.seconds.toFixed(1)} s\n`,
  );
}

/** What `make` gives, as soon as no other process works there. */
async function whenFree<T>(prefix: string, make: () => Promise<T>): Promise<T> {
  for (let told = false; ; told = true) {
    try {
      return await make();
    } catch (cause) {
      const claimed = cause instanceof MbridgeError && cause.code === 'MB_FOLDER_CLAIMED' && 'pid' in cause.details;
      if (!claimed) throw cause;
      if (!told) process.stderr.write(`${prefix}: process ${cause.details['pid'] as number} makes it: waiting\n`);
      await sleep(WAIT_MS);
    }
  }
}

function inputOf({ path, kind }: TextSource): InputFile {
  try {
    const { size, mtimeMs } = statSync(path);
    return { path, kind, bytes: size, mtimeMs };
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function nameOf(source: TextSource, { mtimeMs }: InputFile, { identity, eod, template }: CacheTokenizer): string {
  const { path, kind, chat, field } = source;
  const end = kind === 'text' || chat ? null : (eod ?? null);
  const file = new DataFile(path, null);
  try {
    const { bytes, sha256 } = file.fingerprint(path);
    // The hash of a large file is one of parts of it: its time of change says the rest.
    const time = bytes > HASHED_BYTES ? mtimeMs : 0;
    const parts = [FORMAT, bytes, sha256, time, kind, field, identity, end, ...(chat ? [template] : [])];
    return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
  } finally {
    file.close();
  }
}

/** The command that makes the same files under another prefix. */
function commandFor({ path, kind, chat, field }: TextSource, prefix: string, tokenizer: CacheTokenizer): string {
  const words = ['--input', path, '--tokenizer', tokenizer.path, '--output', prefix];
  if (field !== 'text') words.push('--field', field);
  if (kind === 'text') words.push('--no-append-eod');
  if (chat) words.push('--chat');
  const name = `a name that ends in ${kind === 'text' ? '.txt' : '.jsonl'}`;
  const renamed = kindOf(path) === kind ? '' : ` (after giving the file ${name})`;
  return `${['mbridge data prepare', ...words.map(shellWord)].join(' ')}${renamed}`;
}

function insteadOf(source: TextSource, prefix: string, tokenizer: CacheTokenizer): string {
  const command = commandFor(source, prefix, tokenizer);
  return `${command}, then dataset.type=${source.chat ? 'chat' : 'indexed'} dataset.path=${shellWord(prefix)}`;
}

function unprepared(source: TextSource, prefix: string, tokenizer: CacheTokenizer): MbridgeError {
  const found = `${source.path}: there are no tokens of it, and processes that another program started make none`;
  return new MbridgeError('io', 'MB_DATA_UNPREPARED', found, {
    hint: `run once: ${insteadOf(source, prefix, tokenizer)}`,
    details: { path: source.path, prefix },
  });
}

function notWritable(cause: MbridgeError, source: TextSource, tokenizer: CacheTokenizer): MbridgeError {
  const elsewhere = `${basename(source.path).replace(/\.\w+$/, '')}-tokens`;
  return new MbridgeError(cause.exitCode === 7 ? 'io' : 'environment', cause.code, cause.message, {
    hint: `${cause.hint ?? ''}; or write the tokens elsewhere: ${insteadOf(source, elsewhere, tokenizer)}`,
    details: cause.details,
    cause,
  });
}

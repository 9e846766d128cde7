import { badData } from '../data-error.js';
import type { WrittenType } from '../indexed/format.js';
import { IndexedWriter } from '../indexed/indexed-writer.js';
import { readBlocks } from './blocks.js';
import type { InputFile } from './input-files.js';
import type { PartRecord, Staging } from './staging.js';
import { ThreadPool } from './thread-pool.js';
import type { TokenizedBlock } from './tokenize-block.js';

/** What is told while parts are made. */
export interface PartsProgress {
  /** Bytes of input files were read, and their tokens written. */
  read(bytes: number): void;
  /** Tokens were written. */
  wrote(tokens: number): void;
  /** A line or row is no document. */
  bad(place: string, found: string): void;
  /** The part of a file is there; `kept` from an earlier call. */
  done(file: InputFile, kept: boolean): void;
}

export interface PartsOptions {
  readonly inputs: { readonly files: readonly InputFile[] };
  readonly tokenizer: string;
  readonly eod?: string | undefined;
  readonly appendEod: boolean;
  readonly chat: boolean;
  readonly field: string;
  readonly workers: number;
  readonly strict: boolean;
  readonly progress: PartsProgress;
  readonly staging: Staging;
  readonly dtype: WrittenType;
}

export interface Part {
  readonly file: InputFile;
  /** Of the part's pair. */
  readonly prefix: string;
  readonly record: PartRecord;
}

/** A block on its way through a thread, or the end of its file. */
interface Item {
  readonly file: InputFile;
  readonly block: Promise<TokenizedBlock> | undefined;
  /** Read of the file since the last item. */
  readonly bytes: number;
}

/** Makes the parts of all files that have none yet, in their order. @throws MbridgeError exit 3 or 7 */
export async function makeParts(options: PartsOptions): Promise<Part[]> {
  const { inputs, staging, strict, progress } = options;
  const parts = new Map<InputFile, Part>();
  const open: InputFile[] = [];
  for (const file of inputs.files) {
    const prefix = staging.partOf(file);
    const record = staging.record(prefix);
    if (record === undefined || (strict && record.bad > 0)) open.push(file);
    else {
      parts.set(file, { file, prefix, record });
      progress.done(file, true);
    }
  }
  if (open.length > 0) {
    for await (const part of makeInOrder(open, options)) {
      parts.set(part.file, part);
      progress.done(part.file, false);
    }
  }
  return inputs.files.map((file) => parts.get(file) as Part);
}

async function* makeInOrder(files: readonly InputFile[], options: PartsOptions): AsyncGenerator<Part> {
  const { tokenizer, eod, appendEod, chat, field, workers } = options;
  const pool = new ThreadPool(workers, { tokenizer, eod, appendEod, chat, field });
  let current: PartWriter | undefined;
  try {
    for await (const { file, block, bytes } of ahead(items(files, options, pool), 2 * workers)) {
      current ??= new PartWriter(file, options);
      if (block !== undefined) current.add(await block);
      options.progress.read(bytes);
      if (block === undefined) {
        const made = await current.finish();
        current = undefined;
        yield made;
      }
    }
  } finally {
    current?.abort();
    await pool.close();
  }
}

async function* items(files: readonly InputFile[], options: PartsOptions, pool: ThreadPool): AsyncGenerator<Item> {
  let bytes = 0;
  const item = (file: InputFile, block?: Promise<TokenizedBlock>): Item => {
    const made = { file, block, bytes };
    bytes = 0;
    return made;
  };
  for (const file of files) {
    for await (const block of readBlocks(file, options.field, (read) => (bytes += read))) {
      const tokenized = pool.tokenize(block);
      tokenized.catch(() => undefined); // seen when it is awaited
      yield item(file, tokenized);
    }
    yield item(file);
  }
}

/** The same in the same order, `depth` asked for before they are taken. What fails, fails after what came before. */
async function* ahead<T>(source: AsyncGenerator<T>, depth: number): AsyncGenerator<T> {
  const queue: T[] = [];
  let failure: { readonly cause: unknown } | undefined;
  try {
    for (let ended = false; !ended || queue.length > 0;) {
      while (!ended && queue.length <= depth) {
        try {
          const next = await source.next();
          if (next.done === true) ended = true;
          else queue.push(next.value);
        } catch (cause) {
          failure = { cause };
          ended = true;
        }
      }
      if (queue.length > 0) yield queue.shift() as T;
    }
  } finally {
    await source.return(undefined);
  }
  if (failure !== undefined) throw failure.cause;
}

/** Writes the part of one file. */
class PartWriter {
  readonly #file: InputFile;
  readonly #options: PartsOptions;
  readonly #prefix: string;
  readonly #writer: IndexedWriter;
  readonly #counts = { documents: 0, tokens: 0, bad: 0, empty: 0 };
  #items = 0;

  constructor(file: InputFile, options: PartsOptions) {
    this.#file = file;
    this.#options = options;
    this.#prefix = options.staging.partOf(file);
    // A part that a crash of the machine cuts is seen, and made again.
    this.#writer = IndexedWriter.create(this.#prefix, { dtype: options.dtype, sync: false });
  }

  add({ tokens, lengths, items, bad, empty }: TokenizedBlock): void {
    for (const { index, found } of bad) this.#bad(this.#items + index, found);
    let at = 0;
    for (const length of lengths) {
      this.#writer.add(tokens.subarray(at, at + length));
      at += length;
    }
    this.#items += items;
    const counts = this.#counts;
    counts.documents += lengths.length;
    counts.tokens += at;
    counts.bad += bad.length;
    counts.empty += empty;
    this.#options.progress.wrote(at);
  }

  #bad(item: number, found: string): void {
    const { path, kind } = this.#file;
    const byLine = kind === 'text' || kind === 'lines';
    const place = byLine
      ? `${path}:${item + 1}`
      : `${path} (${kind === 'parquet' || kind === 'arrow' ? 'row' : 'element'} ${item + 1})`;
    if (kind === 'text')
      throw badData('MB_DATA_ENCODING', place, found, 'convert the file to UTF-8 (iconv), or leave it out');
    if (this.#options.strict)
      throw badData('MB_DATA_LINE', place, found, 'mend it; mbridge data prepare without --strict goes on without it');
    this.#options.progress.bad(place, found);
  }

  async finish(): Promise<Part> {
    await this.#writer.commit();
    const record = this.#options.staging.finish(this.#prefix, this.#counts);
    return { file: this.#file, prefix: this.#prefix, record };
  }

  abort(): void {
    this.#writer.abort();
  }
}

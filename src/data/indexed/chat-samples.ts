import { badData } from '../data-error.js';
import type { DataFingerprint, Dataset, Sample } from '../dataset.js';
import { pack, type Packs } from './pack.js';
import type { TokenFile } from './token-file.js';

/** What becomes of conversations of more tokens than a sample has. */
export type TooLong = 'truncate' | 'drop' | 'error';

export interface ChatSamplesOptions {
  readonly seqLength: number;
  readonly tooLong: TooLong;
  /** Several conversations in a sample, which say where they begin. */
  readonly packing: boolean;
  /** See {@link Dataset}. */
  readonly tokenBytes?: ArrayLike<number> | undefined;
}

/** Tokens of each conversation of a pair of `content` chat (see Sidecar). */
export function conversationLengths(file: TokenFile): number[] {
  return Array.from({ length: file.documents / 2 }, (_, i) => file.lengthOf(2 * i));
}

/** Conversations as samples, padded; one each, or as many as fit: the assistant's tokens alone count. */
export class ChatSamples implements Dataset {
  readonly length: number;
  readonly tokenBytes: ArrayLike<number> | undefined;
  readonly #file: TokenFile;
  readonly #o: ChatSamplesOptions;
  /** Conversations that are read, by sample. */
  readonly #packs: Packs;
  readonly #sample: { readonly inputIds: Int32Array; readonly lossMask: Uint8Array; readonly begins?: Uint8Array };

  /** @throws MbridgeError MB_CHAT_LONG, MB_DATA_EMPTY, MB_DATA_INDEX (exit 7) */
  constructor(file: TokenFile, options: ChatSamplesOptions) {
    const { seqLength, tooLong, packing, tokenBytes } = options;
    this.tokenBytes = tokenBytes;
    this.#file = file;
    this.#o = options;
    refuseUneven(file);
    const lengths = conversationLengths(file);
    const most = seqLength + 1;
    const long = lengths.findIndex((length) => length > most);
    if (tooLong === 'error' && long >= 0) {
      throw tooLongError(`${file.prefix} (conversation ${long + 1})`, lengths[long] as number, most);
    }
    this.#packs = conversationPacks(lengths, options);
    this.length = this.#packs.starts.length - 1;
    if (this.length === 0) {
      const found = `all ${lengths.length} conversations have more than ${most} tokens (seq_length + 1)`;
      throw badData('MB_DATA_EMPTY', file.prefix, found, 'raise model.seq_length, or set dataset.too_long=truncate');
    }
    const begins = packing ? { begins: new Uint8Array(most) } : {};
    this.#sample = { inputIds: new Int32Array(most), lossMask: new Uint8Array(most), ...begins };
  }

  sample(index: number): Sample {
    const { inputIds, lossMask, begins } = this.#sample;
    const { starts, items } = this.#packs;
    begins?.fill(0);
    let at = 0;
    for (const conversation of items.subarray(starts[index], starts[index + 1])) {
      const tokens = this.#file.document(2 * conversation, inputIds.length);
      inputIds.set(tokens, at);
      lossMask.set(this.#file.document(2 * conversation + 1, inputIds.length), at);
      // What begins a conversation follows from nothing.
      lossMask[at] = 0;
      if (begins !== undefined) begins[at] = 1;
      at += tokens.length;
    }
    inputIds.fill(0, at);
    lossMask.fill(0, at);
    // The padding sees itself alone.
    if (begins !== undefined && at < begins.length) begins[at] = 1;
    return this.#sample;
  }

  describe(): string {
    const [kept, all] = [this.#packs.items.length, this.#file.documents / 2];
    const what = `${kept}${kept === all ? '' : ` of ${all}`} conversations`;
    const { packing, seqLength } = this.#o;
    const how = packing ? `packed into ${this.length} samples of` : 'padded to';
    return `${this.#file.prefix}: ${what}, ${how} ${seqLength} tokens`;
  }

  fingerprint(): DataFingerprint {
    const { tooLong, packing } = this.#o;
    return { settings: { too_long: tooLong, ...(packing ? { packing } : {}) }, files: this.#file.fingerprints() };
  }

  close(): void {
    this.#file.close();
  }
}

/** Which of the conversations of these lengths each sample holds. */
export function conversationPacks(
  lengths: readonly number[],
  { seqLength, tooLong, packing }: Pick<ChatSamplesOptions, 'seqLength' | 'tooLong' | 'packing'>,
): Packs {
  const most = seqLength + 1;
  const kept = Uint32Array.from(lengths.keys()).filter((i) => tooLong !== 'drop' || (lengths[i] as number) <= most);
  if (!packing) return { starts: Uint32Array.from({ length: kept.length + 1 }, (_, i) => i), items: kept };
  const { starts, items } = pack(
    kept.map((i) => Math.min(lengths[i] as number, most)),
    most,
  );
  return { starts, items: items.map((i) => kept[i] as number) };
}

/** A conversation that `dataset.too_long` refuses. */
export function tooLongError(where: string, length: number, most: number): Error {
  const found = `the conversation has ${length} tokens, a sample ${most} (seq_length + 1)`;
  const hint = 'raise model.seq_length, set dataset.too_long to truncate or drop, or shorten it';
  return badData('MB_CHAT_LONG', where, found, hint);
}

function refuseUneven(file: TokenFile): void {
  const odd = file.documents % 2 === 1 ? file.documents - 1 : undefined;
  const uneven = Array.from({ length: Math.floor(file.documents / 2) }, (_, i) => 2 * i).find(
    (i) => file.lengthOf(i) !== file.lengthOf(i + 1),
  );
  const bad = uneven ?? odd;
  if (bad === undefined) return;
  const found = `document ${bad} is no conversation: no mask as long as it follows`;
  throw badData('MB_DATA_INDEX', file.prefix, found, 'set dataset.type=indexed for token files of texts');
}

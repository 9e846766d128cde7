import { badData } from '../data-error.js';
import type { DataFingerprint, Dataset, Sample } from '../dataset.js';
import type { TokenFile } from './token-file.js';

/** What becomes of conversations of more tokens than a sample has. */
export type TooLong = 'truncate' | 'drop' | 'error';

export interface ChatSamplesOptions {
  readonly seqLength: number;
  readonly tooLong: TooLong;
  /** See {@link Dataset}. */
  readonly tokenBytes?: ArrayLike<number> | undefined;
}

/** Tokens of each conversation of a pair of `content` chat (see Sidecar). */
export function conversationLengths(file: TokenFile): number[] {
  return Array.from({ length: file.documents / 2 }, (_, i) => file.lengthOf(2 * i));
}

/** Conversations as samples, one each, padded: the assistant's tokens alone count. */
export class ChatSamples implements Dataset {
  readonly length: number;
  readonly tokenBytes: ArrayLike<number> | undefined;
  readonly #file: TokenFile;
  readonly #o: ChatSamplesOptions;
  /** Conversations that are read. */
  readonly #kept: Uint32Array;
  readonly #sample: { readonly inputIds: Int32Array; readonly lossMask: Uint8Array };

  /** @throws MbridgeError MB_CHAT_LONG, MB_DATA_EMPTY, MB_DATA_INDEX (exit 7) */
  constructor(file: TokenFile, options: ChatSamplesOptions) {
    const { seqLength, tooLong, tokenBytes } = options;
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
    this.#kept = Uint32Array.from(lengths.keys()).filter((i) => tooLong !== 'drop' || (lengths[i] as number) <= most);
    this.length = this.#kept.length;
    if (this.length === 0) {
      const found = `all ${lengths.length} conversations have more than ${most} tokens (seq_length + 1)`;
      throw badData('MB_DATA_EMPTY', file.prefix, found, 'raise model.seq_length, or set dataset.too_long=truncate');
    }
    this.#sample = { inputIds: new Int32Array(most), lossMask: new Uint8Array(most) };
  }

  sample(index: number): Sample {
    const { inputIds, lossMask } = this.#sample;
    const conversation = this.#kept[index] as number;
    const tokens = this.#file.document(2 * conversation, inputIds.length);
    inputIds.fill(0, tokens.length);
    inputIds.set(tokens);
    lossMask.fill(0, tokens.length);
    lossMask.set(this.#file.document(2 * conversation + 1, inputIds.length));
    return this.#sample;
  }

  describe(): string {
    const all = this.#file.documents / 2;
    const kept = this.length === all ? '' : ` of ${all}`;
    return `${this.#file.prefix}: ${this.length}${kept} conversations, padded to ${this.#o.seqLength} tokens`;
  }

  fingerprint(): DataFingerprint {
    return { settings: { too_long: this.#o.tooLong }, files: this.#file.fingerprints() };
  }

  close(): void {
    this.#file.close();
  }
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

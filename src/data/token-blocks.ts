import { badData } from './data-error.js';
import { padded, type DataFingerprint, type Dataset, type FileFingerprint, type Sample } from './dataset.js';

/** What becomes of the last tokens, which do not fill a sample. */
export type Tail = 'leave' | 'pad';

/** A long run of tokens with random access. */
export interface TokenSource {
  /** Where the tokens come from, for messages. */
  readonly name: string;
  readonly length: number;
  /** See {@link Dataset}. */
  readonly tokenBytes?: ArrayLike<number> | undefined;
  /** Copies tokens start..start+dst.length-1 to `dst`; the range is inside the source. */
  read(start: number, dst: Int32Array): void;
  /** Sets `dst` to 1 where token start + j is the first of a document, else to 0. Absent: all is one document. */
  begins?(start: number, dst: Uint8Array): void;
  fingerprint(): FileFingerprint;
  close(): void;
}

/**
 * A token run cut into contiguous samples: sample i is tokens i*seq .. i*seq + seq inclusive, so that neighbours share
 * one token and each token but the first is predicted exactly once. A tail that does not fill a sample is left out, or
 * is one more sample, in which only its own tokens count.
 */
export class TokenBlocks implements Dataset {
  readonly length: number;
  readonly tokenBytes: ArrayLike<number> | undefined;
  readonly #source: TokenSource;
  readonly #sample: { readonly inputIds: Int32Array; readonly begins?: Uint8Array };

  /** @param documents whether samples say where documents begin */
  constructor(source: TokenSource, seqLength: number, tail: Tail = 'leave', documents = false) {
    const whole = tail === 'leave' ? Math.floor : Math.ceil;
    this.length = whole((source.length - 1) / seqLength);
    this.tokenBytes = source.tokenBytes;
    this.#source = source;
    const begins = documents ? { begins: new Uint8Array(seqLength + 1) } : {};
    this.#sample = { inputIds: new Int32Array(seqLength + 1), ...begins };
    if (this.length < 1) {
      const needed = tail === 'leave' ? `${seqLength + 1} (seq_length + 1)` : '2';
      throw badData(
        'MB_DATA_EMPTY',
        source.name,
        `holds ${source.length} tokens, one sample needs ${needed}`,
        tail === 'leave' ? 'use a longer text or a smaller model.seq_length' : 'use a longer text',
        { tokens: source.length, needed: tail === 'leave' ? seqLength + 1 : 2 },
      );
    }
  }

  sample(index: number): Sample {
    const { inputIds: ids, begins } = this.#sample;
    const start = index * (ids.length - 1);
    const here = Math.min(ids.length, this.#source.length - start);
    this.#source.read(start, ids.subarray(0, here));
    begins?.fill(0);
    if (begins !== undefined) this.#source.begins?.(start, begins.subarray(0, here));
    return here === ids.length ? this.#sample : padded(this.#sample, here);
  }

  describe(): string {
    const seq = this.#sample.inputIds.length - 1;
    return `${this.#source.name}: ${this.#source.length} tokens, ${this.length} samples of ${seq}`;
  }

  fingerprint(): DataFingerprint {
    return { settings: {}, files: [this.#source.fingerprint()] };
  }

  close(): void {
    this.#source.close();
  }
}

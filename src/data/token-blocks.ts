import { badData } from './data-error.js';
import type { DataFingerprint, Dataset, FileFingerprint, Sample } from './dataset.js';

/** A long run of tokens with random access. */
export interface TokenSource {
  /** Where the tokens come from, for messages. */
  readonly name: string;
  readonly length: number;
  /** Copies tokens start..start+dst.length-1 to `dst`; the range is inside the source. */
  read(start: number, dst: Int32Array): void;
  fingerprint(): FileFingerprint;
  close(): void;
}

/**
 * A token run cut into contiguous samples: sample i is tokens i*seq .. i*seq + seq inclusive, so that neighbours share
 * one token and each token but the first is predicted exactly once. A tail that does not fill a sample is left out.
 */
export class TokenBlocks implements Dataset {
  readonly length: number;
  readonly #source: TokenSource;
  readonly #sample: { inputIds: Int32Array };

  constructor(source: TokenSource, seqLength: number) {
    this.length = Math.floor((source.length - 1) / seqLength);
    this.#source = source;
    this.#sample = { inputIds: new Int32Array(seqLength + 1) };
    if (this.length < 1) {
      throw badData(
        'MB_DATA_EMPTY',
        source.name,
        `holds ${source.length} tokens, one sample needs ${seqLength + 1} (seq_length + 1)`,
        'use a longer text or a smaller model.seq_length',
        { tokens: source.length, needed: seqLength + 1 },
      );
    }
  }

  sample(index: number): Sample {
    const ids = this.#sample.inputIds;
    this.#source.read(index * (ids.length - 1), ids);
    return this.#sample;
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

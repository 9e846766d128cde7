import { badData } from '../data-error.js';
import { padded, type DataFingerprint, type Dataset, type Sample, type SourceProgress } from '../dataset.js';
import { SampleOrder } from '../sample-order.js';
import { DocumentStream } from './document-stream.js';
import type { Tail } from '../token-blocks.js';
import type { Split } from './split.js';
import type { TokenFile } from './token-file.js';

export interface IndexedSamplesOptions {
  readonly split: Split;
  /** Documents of the file that are read. */
  readonly range: { readonly from: number; readonly to: number };
  readonly tail: Tail;
  readonly seqLength: number;
  /** Undefined: documents and samples in file order. */
  readonly seed: number | undefined;
  /** Whether samples say where documents begin. */
  readonly documents?: boolean | undefined;
  /** See {@link Dataset}. */
  readonly tokenBytes?: ArrayLike<number> | undefined;
}

/**
 * Samples across documents, as Megatron's GPTDataset cuts them: an epoch's documents are shuffled and put end to end, cut
 * into samples that share one token, and the samples shuffled. A tail that does not fill a sample is left out of that
 * epoch, or is a sample in which only its own tokens count. Sample k is a function of (seed, k) alone; k may pass `length`, which is an epoch.
 */
export class IndexedSamples implements Dataset {
  readonly length: number;
  readonly tokenBytes: ArrayLike<number> | undefined;
  readonly #file: TokenFile;
  readonly #o: IndexedSamplesOptions;
  readonly #documents: DocumentStream;
  readonly #order: SampleOrder;
  readonly #sample: { readonly inputIds: Int32Array; readonly begins?: Uint8Array };

  /** @throws MbridgeError MB_DATA_EMPTY, exit 7, for a split that holds no sample */
  constructor(file: TokenFile, options: IndexedSamplesOptions) {
    const { split, tail, range, seqLength, seed } = options;
    this.#file = file;
    this.#o = options;
    this.tokenBytes = options.tokenBytes;
    this.#documents = new DocumentStream(file, range, seed);
    const whole = tail === 'leave' ? Math.floor : Math.ceil;
    this.length = Math.max(0, whole((this.#documents.tokens - 1) / seqLength));
    if (this.length < 1) {
      const found = `${this.#part()} hold ${this.#documents.tokens} tokens, one sample needs ${tail === 'leave' ? `${seqLength + 1} (seq_length + 1)` : 2}`;
      const hint = 'give more data, a smaller model.seq_length, or another dataset.split';
      throw badData('MB_DATA_EMPTY', file.prefix, found, hint, { split, tokens: this.#documents.tokens });
    }
    this.#order = new SampleOrder(this.length, seed);
    const begins = options.documents === true ? { begins: new Uint8Array(seqLength + 1) } : {};
    this.#sample = { inputIds: new Int32Array(seqLength + 1), ...begins };
  }

  sample(index: number): Sample {
    const { epoch, index: place } = this.#order.at(index);
    const { inputIds: ids, begins } = this.#sample;
    const start = place * this.#o.seqLength;
    const here = Math.min(ids.length, this.#documents.tokens - start);
    begins?.fill(0);
    this.#documents.read(epoch, start, ids.subarray(0, here), begins?.subarray(0, here));
    return here === ids.length ? this.#sample : padded(this.#sample, here);
  }

  epoch(index: number): number {
    return this.#order.epoch(index);
  }

  progress(consumed: number): SourceProgress[] {
    return [{ path: this.#file.prefix, share: 1, samples: consumed, epochs: consumed / this.length }];
  }

  #part(): string {
    const { split, range } = this.#o;
    return `${range.to - range.from} of ${this.#file.documents} documents (${split})`;
  }

  describe(): string {
    const { tokens } = this.#documents;
    return `${this.#file.prefix}: ${this.#part()}, ${tokens} tokens, ${this.length} samples of ${this.#o.seqLength} an epoch`;
  }

  fingerprint(): DataFingerprint {
    const { split, range } = this.#o;
    return { settings: { split, documents: `${range.from}-${range.to}` }, files: this.#file.fingerprints() };
  }

  close(): void {
    this.#file.close();
  }
}

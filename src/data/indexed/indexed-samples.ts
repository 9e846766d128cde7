import { badData } from '../data-error.js';
import type { DataFingerprint, Dataset, Sample, SourceProgress } from '../dataset.js';
import { SampleOrder } from '../sample-order.js';
import { DocumentStream } from './document-stream.js';
import type { Split } from './split.js';
import type { TokenFile } from './token-file.js';

export interface IndexedSamplesOptions {
  readonly split: Split;
  /** Documents of the file that are read. */
  readonly range: { readonly from: number; readonly to: number };
  readonly seqLength: number;
  /** Undefined: documents and samples in file order. */
  readonly seed: number | undefined;
}

/**
 * Samples across documents, as Megatron's GPTDataset cuts them: an epoch's documents are shuffled and put end to end, cut
 * into samples that share one token, and the samples shuffled. A tail that does not fill a sample is left out of that
 * epoch. Sample k is a function of (seed, k) alone; k may pass `length`, which is an epoch.
 */
export class IndexedSamples implements Dataset {
  readonly length: number;
  readonly #file: TokenFile;
  readonly #o: IndexedSamplesOptions;
  readonly #documents: DocumentStream;
  readonly #order: SampleOrder;
  readonly #sample: { inputIds: Int32Array };

  /** @throws MbridgeError MB_DATA_EMPTY, exit 7, for a split that holds no sample */
  constructor(file: TokenFile, options: IndexedSamplesOptions) {
    const { split, range, seqLength, seed } = options;
    this.#file = file;
    this.#o = options;
    this.#documents = new DocumentStream(file, range, seed);
    this.length = Math.max(0, Math.floor((this.#documents.tokens - 1) / seqLength));
    if (this.length < 1) {
      const found = `${this.#part()} hold ${this.#documents.tokens} tokens, one sample needs ${seqLength + 1} (seq_length + 1)`;
      const hint = 'give more data, a smaller model.seq_length, or another dataset.split';
      throw badData('MB_DATA_EMPTY', file.prefix, found, hint, { split, tokens: this.#documents.tokens });
    }
    this.#order = new SampleOrder(this.length, seed);
    this.#sample = { inputIds: new Int32Array(seqLength + 1) };
  }

  sample(index: number): Sample {
    const { epoch, index: place } = this.#order.at(index);
    this.#documents.read(epoch, place * this.#o.seqLength, this.#sample.inputIds);
    return this.#sample;
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

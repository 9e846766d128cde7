import { badData } from './data-error.js';
import type { DataFingerprint, Dataset, Sample } from './dataset.js';

/** A program's own dataset, each sample looked at before a kernel reads memory by its tokens. */
export class OwnDataset implements Dataset {
  readonly length: number;
  readonly #dataset: Dataset;
  readonly #vocabSize: number;
  readonly #seqLength: number;

  /** @throws MbridgeError MB_DATA_EMPTY, exit 7, for a length that is none */
  constructor(dataset: Dataset, { vocabSize, seqLength }: { vocabSize: number; seqLength: number }) {
    const { length } = dataset;
    if (!(length === Infinity || (Number.isSafeInteger(length) && length >= 1))) {
      throw badData('MB_DATA_EMPTY', dataset.describe(), `has ${length} samples`, 'length is 1 or more, or Infinity');
    }
    this.length = length;
    this.#dataset = dataset;
    this.#vocabSize = vocabSize;
    this.#seqLength = seqLength;
  }

  /** @throws MbridgeError MB_DATA_SAMPLE, MB_DATA_SAMPLE_LENGTH or MB_DATA_TOKEN, exit 7, naming the sample */
  sample(index: number): Sample {
    const sample = this.#dataset.sample(index);
    const { inputIds, lossMask, begins } = sample;
    const tokens = this.#seqLength + 1;
    if (!(inputIds instanceof Int32Array)) throw this.#bad('MB_DATA_SAMPLE', index, 'inputIds is no Int32Array');
    const fields = Object.entries({ inputIds, lossMask, begins }).flatMap(([name, field]) =>
      field === undefined ? [] : [{ name, length: field.length }],
    );
    if (fields.some(({ length }) => length !== tokens)) {
      const found = fields.map(({ name, length }) => `${name} has ${length} entries`).join(', ');
      throw this.#bad('MB_DATA_SAMPLE_LENGTH', index, `${found}; expected ${tokens} (seq_length + 1)`);
    }
    for (let j = 0; j < tokens; j++) {
      const token = inputIds[j] as number;
      if (token < 0 || token >= this.#vocabSize) {
        const found = `token ${token} at position ${j} is not in the vocabulary of ${this.#vocabSize}`;
        throw this.#bad('MB_DATA_TOKEN', index, found);
      }
    }
    return sample;
  }

  #bad(code: string, index: number, found: string): Error {
    const hint =
      'a sample is seq_length + 1 tokens as an Int32Array, and a lossMask and begins of as many entries where it has them';
    return badData(code, `${this.describe()}: sample ${index}`, found, hint);
  }

  describe(): string {
    return this.#dataset.describe();
  }

  fingerprint(): DataFingerprint | null {
    return this.#dataset.fingerprint?.() ?? null;
  }

  close(): void {
    this.#dataset.close();
  }
}

import { badData } from './data-error.js';
import type { Dataset } from './dataset.js';
import type { MicroBatch } from './micro-batch.js';
import { SampleBatches } from './sample-batches.js';
import type { SampleOrder } from './sample-order.js';

export interface EvaluationSetOptions {
  readonly name: string;
  /** The set's to close. */
  readonly dataset: Dataset;
  readonly order: SampleOrder;
  /** How many samples an evaluation reads; null for all that there are. */
  readonly samples: number | null;
  readonly dpRank: number;
  readonly dpSize: number;
  readonly vocabSize: number;
  readonly seqLength: number;
  readonly globalBatchSize: number;
  readonly microBatchSize: number;
}

/**
 * The first samples of a dataset, in an order of their own: every evaluation reads the same, each of them once. They
 * come in batches as an update's do; what the last one lacks is filled up with samples in which nothing counts.
 */
export class EvaluationSet {
  readonly name: string;
  readonly samples: number;
  readonly #o: EvaluationSetOptions;
  readonly #batches: SampleBatches;
  #bytes: number | null | undefined;

  /** @throws MbridgeError MB_DATA_TOO_FEW, exit 7, where the dataset has less than was asked for */
  constructor(options: EvaluationSetOptions) {
    const { dataset, dpSize, globalBatchSize, microBatchSize, seqLength, vocabSize } = options;
    this.name = options.name;
    this.samples = options.samples ?? dataset.length;
    this.#o = options;
    this.#batches = new SampleBatches({
      count: globalBatchSize / (microBatchSize * dpSize),
      ...{ microBatchSize, seqLength, vocabSize },
    });
    if (this.samples > dataset.length) {
      const found = `${this.samples} samples are to be evaluated, there are ${dataset.length}`;
      const hint =
        'lower validation.eval_samples, or validation.eval_iters (batches of train.global_batch_size samples); without either the whole set is read';
      throw badData('MB_DATA_TOO_FEW', `${this.name} (${dataset.describe()})`, found, hint);
    }
  }

  /** Tokens that an evaluation reads, counted or not. */
  get positions(): number {
    return this.samples * this.#o.seqLength;
  }

  /** This replica's micro-batches of one batch after the other, each valid until the next. */
  *batches(): Generator<readonly MicroBatch[]> {
    const { dataset, order, globalBatchSize, dpRank, dpSize } = this.#o;
    for (let done = 0; done < this.samples; done += globalBatchSize) {
      const first = done + dpRank * (globalBatchSize / dpSize);
      yield this.#batches.fill((k) => (first + k < this.samples ? dataset.sample(order.at(first + k).index) : null));
    }
  }

  /**
   * Bytes of text that the counted tokens of an evaluation stand for, over all replicas; null where that is not known.
   * Reads all samples when it is first asked.
   */
  bytes(): number | null {
    this.#bytes ??= this.#countBytes();
    return this.#bytes;
  }

  #countBytes(): number | null {
    const { dataset, order } = this.#o;
    const { tokenBytes } = dataset;
    if (tokenBytes === undefined) return null;
    let bytes = 0;
    for (let k = 0; k < this.samples; k++) {
      const { inputIds, lossMask } = dataset.sample(order.at(k).index);
      for (let j = 1; j < inputIds.length; j++) {
        if (lossMask === undefined || lossMask[j] !== 0) bytes += tokenBytes[inputIds[j] as number] ?? 0;
      }
    }
    return bytes;
  }

  describe(): string {
    const { dataset } = this.#o;
    const unknown = dataset.tokenBytes === undefined ? '; no bits per byte: it does not say what bytes a token is' : '';
    return `${this.name}: ${this.samples} samples of ${dataset.describe()}${unknown}`;
  }

  close(): void {
    this.#o.dataset.close();
  }
}

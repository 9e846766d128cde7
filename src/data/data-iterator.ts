import type { DataFingerprint, Dataset, SourceProgress } from './dataset.js';
import type { BatchSource, MicroBatch } from './micro-batch.js';
import { SampleBatches } from './sample-batches.js';
import type { SampleOrder } from './sample-order.js';

export interface DataIteratorOptions {
  dataset: Dataset;
  /** What beside the dataset decides the samples and their order; for the fingerprint. */
  settings?: DataFingerprint['settings'];
  order: SampleOrder;
  dpRank: number;
  dpSize: number;
  vocabSize: number;
  seqLength: number;
  globalBatchSize: number;
  microBatchSize: number;
  /** Samples that were consumed before update `startStep`, over all replicas. */
  consumedSamples: number;
  startStep: number;
}

/**
 * Gives a replica its samples of each update. Update n reads global_batch_size samples, k = 0, 1, ... in the order of
 * SampleOrder; replica r takes k in [r*gbs/dp, (r+1)*gbs/dp), and its micro-batch m the samples
 * r*gbs/dp + m*mbs + i, i < mbs. So the samples of an update are the same on every layout, and any update can be read.
 */
export class DataIterator implements BatchSource {
  readonly #options: DataIteratorOptions;
  readonly #batches: SampleBatches;

  constructor(options: DataIteratorOptions) {
    const { globalBatchSize, microBatchSize, dpSize, seqLength, vocabSize } = options;
    const count = globalBatchSize / (microBatchSize * dpSize);
    if (!Number.isInteger(count)) {
      throw new RangeError(
        `batch ${globalBatchSize} is not a multiple of micro-batch ${microBatchSize} * dp ${dpSize}`,
      );
    }
    this.#options = options;
    this.#batches = new SampleBatches({ count, microBatchSize, seqLength, vocabSize });
  }

  /** Micro-batches an update. */
  get count(): number {
    return this.#batches.count;
  }

  /** The micro-batches of update `step` (from 1). The arrays are the iterator's own: the next call overwrites them. */
  next(step: number): readonly MicroBatch[] {
    const { dataset, order, globalBatchSize, dpRank, dpSize } = this.#options;
    const first = this.consumedBefore(step) + dpRank * (globalBatchSize / dpSize);
    return this.#batches.fill((k) => dataset.sample(order.at(first + k).index));
  }

  /** Samples consumed by all replicas before update `step`. */
  consumedBefore(step: number): number {
    const { consumedSamples, startStep, globalBatchSize } = this.#options;
    return consumedSamples + (step - startStep) * globalBatchSize;
  }

  /** Pass over the data (from 0) that the last sample of update `step` belongs to. */
  epoch(step: number): number {
    const { dataset, order } = this.#options;
    const last = this.consumedBefore(step + 1) - 1;
    return dataset.epoch?.(last) ?? order.epoch(last);
  }

  /** How far each source was read after update `step`; empty where the dataset does not say. */
  progress(step: number): SourceProgress[] {
    return this.#options.dataset.progress?.(this.consumedBefore(step + 1)) ?? [];
  }

  describe(): string {
    return this.#options.dataset.describe();
  }

  /** What tells whether a resumed run reads the same samples; null where the dataset does not say. */
  fingerprint(): DataFingerprint | null {
    const { dataset, settings } = this.#options;
    const own = dataset.fingerprint?.() ?? null;
    return own === null ? null : { settings: { ...settings, ...own.settings }, files: own.files };
  }

  close(): void {
    this.#options.dataset.close();
  }
}

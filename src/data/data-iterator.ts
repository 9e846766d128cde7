import type { DataFingerprint, Dataset, SourceProgress } from './dataset.js';
import { BATCH_FIELDS, type BatchSource, type MicroBatch } from './micro-batch.js';
import type { SampleOrder } from './sample-order.js';
import { tokenSorter } from './token-order.js';

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
  readonly #microBatches: readonly MicroBatch[];
  readonly #sort: (tokens: Int32Array, order: Int32Array) => void;

  constructor(options: DataIteratorOptions) {
    const { globalBatchSize, microBatchSize, dpSize, seqLength, vocabSize } = options;
    const count = globalBatchSize / (microBatchSize * dpSize);
    if (!Number.isInteger(count)) {
      throw new RangeError(
        `batch ${globalBatchSize} is not a multiple of micro-batch ${microBatchSize} * dp ${dpSize}`,
      );
    }
    this.#options = options;
    this.#microBatches = Array.from({ length: count }, () => allocate(microBatchSize, seqLength));
    this.#sort = tokenSorter(microBatchSize * seqLength, vocabSize);
  }

  /** Micro-batches an update. */
  get count(): number {
    return this.#microBatches.length;
  }

  /** The micro-batches of update `step` (from 1). The arrays are the iterator's own: the next call overwrites them. */
  next(step: number): readonly MicroBatch[] {
    const { globalBatchSize, microBatchSize, dpRank, dpSize } = this.#options;
    const first = this.consumedBefore(step) + dpRank * (globalBatchSize / dpSize);
    this.#microBatches.forEach((batch, m) => this.#fill(batch, first + m * microBatchSize));
    return this.#microBatches;
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

  #fill(batch: MicroBatch, first: number): void {
    const { dataset, order, microBatchSize, seqLength } = this.#options;
    for (let i = 0; i < microBatchSize; i++) {
      const { inputIds, lossMask } = dataset.sample(order.at(first + i).index);
      const at = i * seqLength;
      batch.tokens.set(inputIds.subarray(0, seqLength), at);
      batch.targets.set(inputIds.subarray(1), at);
      if (lossMask === undefined) batch.mask.fill(1, at, at + seqLength);
      else batch.mask.set(lossMask.subarray(1), at);
    }
    this.#sort(batch.tokens, batch.order);
  }
}

function allocate(microBatchSize: number, seqLength: number): MicroBatch {
  const n = microBatchSize * seqLength;
  const arrays = BATCH_FIELDS.map(({ name, dtype }) => [
    name,
    dtype === 'f32' ? new Float32Array(n) : new Int32Array(n),
  ]);
  const batch = Object.fromEntries(arrays) as MicroBatch;
  batch.positions.forEach((_, j, positions) => (positions[j] = j % seqLength));
  return batch;
}

import type { Sample } from './dataset.js';
import { BATCH_FIELDS, type MicroBatch } from './micro-batch.js';
import { tokenSorter } from './token-order.js';

export interface SampleBatchesOptions {
  /** Micro-batches. */
  readonly count: number;
  readonly microBatchSize: number;
  readonly seqLength: number;
  readonly vocabSize: number;
}

/** A replica's micro-batches of one update: memory that is filled from samples again and again. */
export class SampleBatches {
  readonly #batches: readonly MicroBatch[];
  readonly #options: SampleBatchesOptions;
  readonly #sort: (tokens: Int32Array, order: Int32Array) => void;

  constructor(options: SampleBatchesOptions) {
    const { count, microBatchSize, seqLength, vocabSize } = options;
    this.#options = options;
    this.#batches = Array.from({ length: count }, () => allocate(microBatchSize, seqLength));
    this.#sort = tokenSorter(microBatchSize * seqLength, vocabSize);
  }

  get count(): number {
    return this.#batches.length;
  }

  /**
   * Fills all of them, sample after sample; the next call overwrites what it returns.
   * @param sampleAt sample k of count * microBatchSize; null for one in which no token counts
   */
  fill(sampleAt: (k: number) => Sample | null): readonly MicroBatch[] {
    const { microBatchSize, seqLength } = this.#options;
    this.#batches.forEach((batch, m) => {
      for (let i = 0; i < microBatchSize; i++) {
        place(batch, sampleAt(m * microBatchSize + i), i * seqLength, seqLength);
      }
      this.#sort(batch.tokens, batch.order);
    });
    return this.#batches;
  }
}

function place(batch: MicroBatch, sample: Sample | null, at: number, seqLength: number): void {
  const end = at + seqLength;
  placePositions(batch.positions, sample?.begins, at, end);
  if (sample === null) {
    for (const field of [batch.tokens, batch.targets, batch.mask]) field.fill(0, at, end);
    return;
  }
  const { inputIds, lossMask } = sample;
  batch.tokens.set(inputIds.subarray(0, seqLength), at);
  batch.targets.set(inputIds.subarray(1), at);
  if (lossMask === undefined) batch.mask.fill(1, at, end);
  else batch.mask.set(lossMask.subarray(1), at);
}

function placePositions(positions: Int32Array, begins: Uint8Array | undefined, at: number, end: number): void {
  let first = at;
  for (let j = at; j < end; j++) {
    if (begins !== undefined && begins[j - at] === 1) first = j;
    positions[j] = j - first;
  }
}

function allocate(microBatchSize: number, seqLength: number): MicroBatch {
  const n = microBatchSize * seqLength;
  const arrays = BATCH_FIELDS.map(({ name, dtype }) => [
    name,
    dtype === 'f32' ? new Float32Array(n) : new Int32Array(n),
  ]);
  return Object.fromEntries(arrays) as MicroBatch;
}

import { SampleBatches, type Groups, type MicroBatch, type RunConfig, type Sample } from '../../src/index.js';

/** The rows of a batch that are this rank's replica's of a model, as micro-batches. */
export class ReplicaRows {
  /** Of the batch; the others follow. */
  readonly first: number;
  readonly #memory: SampleBatches;
  readonly #size: number;
  readonly #seq: number;

  constructor({ model, train }: RunConfig, { dp }: Groups) {
    const count = train.global_batch_size / dp.size;
    this.first = dp.rank * count;
    [this.#size, this.#seq] = [train.micro_batch_size, model.seq_length];
    const sizes = { microBatchSize: this.#size, seqLength: this.#seq, vocabSize: model.vocab_size };
    this.#memory = new SampleBatches({ count: count / this.#size, ...sizes });
  }

  /** @param fields what the loss reads beside, `seq_length` numbers a row; the next call overwrites what this returns */
  batches(
    sampleOf: (row: number) => Sample,
    fields: Readonly<Record<string, (row: number) => ArrayLike<number>>> = {},
  ): MicroBatch[] {
    const batches = this.#memory.fill((k) => sampleOf(this.first + k));
    return batches.map((batch, m) => {
      const own = Object.entries(fields).map(([name, of]) => {
        const values = new Float32Array(this.#size * this.#seq);
        for (let i = 0; i < this.#size; i++) values.set(of(this.first + m * this.#size + i), i * this.#seq);
        return [name, values] as const;
      });
      return { ...batch, ...Object.fromEntries(own) };
    });
  }
}

import type { CommGroup } from '../../groups/comm/comm-group.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';

/** Rows that a rank brings: `values` [rows * width], to stand from row `first` on. */
export interface RowPart {
  readonly first: number;
  readonly values: ArrayLike<number>;
}

/**
 * Rows of numbers that some ranks of a group have, and all get: log-probabilities, rewards, tokens of a batch whose
 * replicas, or whose models, lie on different ranks. Memory is taken once, rows * width * 4 bytes.
 */
export class RowTable {
  readonly #group: CommGroup;
  readonly #rows: number;
  readonly #width: number;
  readonly #plan = new MemoryPlan();
  readonly #memory: Tensor;

  /** Every rank of the group makes it. */
  constructor(group: CommGroup, { rows, width }: { rows: number; width: number }) {
    this.#group = group;
    this.#rows = rows;
    this.#width = width;
    this.#memory = this.#plan.tensor('communication', [rows * width], 'f32');
    this.#plan.commit(group.device);
  }

  /**
   * Every rank calls it; waits for the device. Numbers are float32, so integers are exact below 2^24.
   * @param part what this rank brings, or null; a row has to come from one rank alone (see DistributedModel.speaks)
   * @returns f32 [rows * width]: all rows; 0 where nobody brought one
   * @throws RangeError for rows that the table has not
   */
  share(part: RowPart | null): Float32Array {
    const all = new Float32Array(this.#rows * this.#width);
    if (part !== null) {
      const start = part.first * this.#width;
      if (part.values.length % this.#width !== 0 || start < 0 || start + part.values.length > all.length) {
        throw new RangeError(
          `${part.values.length} values from row ${part.first} on, in a table of ${this.#rows} rows of ${this.#width}`,
        );
      }
      all.set(part.values, start);
    }
    const { device } = this.#group;
    device.write(this.#memory, all);
    this.#group.allReduce(this.#memory);
    device.read(this.#memory, all);
    return all;
  }

  dispose(): void {
    this.#plan.release();
  }
}

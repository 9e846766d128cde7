import type { ActDType } from '../../engine/dtype.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import { DECODE } from '../../engine/decode-ops.js';
import type { Tensor } from '../../engine/tensor.js';

/** How many rows a model generates at once, and how long they may get. */
export interface GenerationSizes {
  /** Rows at once, on each replica. */
  readonly slots: number;
  /** Tokens of a row, prompt included, rounded up to a multiple of 16. */
  readonly context: number;
}

/**
 * Keys and values of the layers of a rank: region `cache` of the plan,
 * 2 * layers * kvHeads / tp * headDim * bytes * slots * context bytes.
 */
export class KvCache {
  readonly slots: number;
  readonly context: number;
  readonly #all: Tensor;

  /** @param kvWidth kvHeads * headDim of this rank */
  constructor(plan: MemoryPlan, sizes: GenerationSizes, kvWidth: number, layers: number, dtype: ActDType) {
    this.slots = sizes.slots;
    this.context = Math.ceil(sizes.context / DECODE.cacheStep) * DECODE.cacheStep;
    this.#all = plan.tensor('cache', [2 * layers, this.slots, this.context, kvWidth], dtype);
  }

  /** Of the `index`th layer here, each [slots, context, kvWidth]. */
  layer(index: number): { k: Tensor; v: Tensor } {
    const of = (i: number): Tensor => this.#all.rows(i, 1).view(...this.#all.shape.slice(1));
    return { k: of(2 * index), v: of(2 * index + 1) };
  }
}

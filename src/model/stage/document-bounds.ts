import type { Device } from '../../engine/device.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import type { PerMicroBatch } from '../blocks/stage-env.js';
import type { BatchCut } from './batch-cut.js';

/**
 * Which keys of its sample a token may see, by the positions of a batch: from the place of its own position 0 on. Causality
 * ends them.
 */
export class DocumentBounds {
  /** i32 [tokens, 2] */
  readonly of: PerMicroBatch;
  /** Pairs of a token and one that it sees, of a whole step's samples on this replica; on average it sees half of itself. */
  pairs = 0;
  readonly #all: Tensor;
  readonly #host: Int32Array;
  readonly #sizes: { readonly tokens: number; readonly seq: number };

  /** @param sizes.tokens of a micro-batch, on this rank; sizes.seq of a sample */
  constructor(plan: MemoryPlan, sizes: { microBatches: number; tokens: number; seq: number }) {
    const { microBatches, tokens } = sizes;
    this.#sizes = sizes;
    this.#all = plan.tensor('staging', [microBatches * tokens * 2], 'i32');
    this.#host = new Int32Array(microBatches * tokens * 2);
    const tensors = Array.from({ length: microBatches }, (_, m) =>
      this.#all.slice(m * tokens * 2, tokens * 2, [tokens, 2]),
    );
    this.of = (microBatch) => tensors[microBatch] as Tensor;
  }

  /** @param positions of each micro-batch, of all of its samples' tokens */
  upload(device: Device, positions: readonly Int32Array[], cut: BatchCut | null): void {
    const { tokens, seq } = this.#sizes;
    this.pairs = 0;
    positions.forEach((of, m) => {
      const at = m * tokens * 2;
      for (let i = 0; i < tokens; i++) {
        const token = cut === null ? i : cut.tokenAt(i);
        this.#host[at + 2 * i] = (token % seq) - (of[token] as number);
        this.#host[at + 2 * i + 1] = seq;
      }
      for (const position of of) this.pairs += position + 0.5;
    });
    const used = positions.length * tokens * 2;
    device.write(this.#all.slice(0, used), this.#host.subarray(0, used));
  }
}

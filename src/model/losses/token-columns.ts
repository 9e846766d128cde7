import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import type { StageEnv } from '../blocks/stage-env.js';

/** For each token of a rank that shares sequences, its number in the whole micro-batch. */
export function tokensHeld({ cp, sizes: { batch, seq } }: StageEnv, rank = cp.rank): Int32Array {
  if (cp.size === 1) return Int32Array.from({ length: batch * seq }, (_, token) => token);
  return cp.tokensOf(batch, seq, rank);
}

/** The rows, each of `width` numbers, of the tokens that are `held`; all where it is null. */
export function takeTokens<Values extends Int32Array | Float32Array>(
  values: Values,
  held: Int32Array | null,
  width: number,
): Values {
  if (held === null) return values;
  const part = values.slice(0, held.length * width) as Values;
  held.forEach((token, i) => {
    part.set(values.subarray(token * width, (token + 1) * width), i * width);
  });
  return part;
}

/**
 * A row of `width` numbers for each token of a micro-batch, on its way to the host: ranks that share sequences give each
 * other theirs, so that all read the same, in the order of the micro-batch.
 */
export class TokenColumns {
  readonly #env: StageEnv;
  readonly #width: number;
  /** [cp, tokens, width] */
  readonly #all: Tensor;

  constructor(env: StageEnv, plan: MemoryPlan, width: number, dtype: 'i32' | 'f32') {
    this.#env = env;
    this.#width = width;
    this.#all = plan.tensor('communication', [env.cp.size, env.sizes.tokens, width], dtype);
  }

  /** [tokens, width]: what this rank has to fill. */
  get own(): Tensor {
    const { cp, sizes } = this.#env;
    return this.#all.rows(cp.rank, 1).view(sizes.tokens, this.#width);
  }

  /** Waits for the device. @param to [b*s*width] */
  read(to: Int32Array | Float32Array): void {
    const { cp, sizes, ops } = this.#env;
    const all = cp.size === 1 ? this.#all : cp.startGather(this.own, this.#all).wait();
    if (cp.size === 1) return ops.device.read(all, to);
    const found = to.slice();
    ops.device.read(all, found);
    for (let rank = 0; rank < cp.size; rank++) {
      const first = rank * sizes.tokens;
      tokensHeld(this.#env, rank).forEach((token, i) => {
        const row = found.subarray((first + i) * this.#width, (first + i + 1) * this.#width);
        to.set(row, token * this.#width);
      });
    }
  }
}

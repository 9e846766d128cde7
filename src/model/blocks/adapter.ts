import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import type { StageEnv } from './stage-env.js';

/** The adapters of a product, one for each of its parts that has one. */
export interface AdapterWeights {
  /** [parts * rank, inputs]: A of each part, so that one product serves all. */
  readonly a: Weight;
  readonly parts: readonly {
    /** [outputs of the part, rank] */
    readonly b: Weight;
    /** Where the part's outputs begin among those of the product. */
    readonly column: number;
  }[];
  readonly rank: number;
  /** alpha / rank */
  readonly scale: number;
}

/**
 * Low-rank adapters beside a frozen product: y += scale * B (A x). Where tensor parallelism cuts the product's outputs, A is
 * whole on every rank and B is cut; where it cuts the inputs, A is cut and B is whole, and A x is this rank's part of
 * a sum that nobody needs: B is linear, so that what the product adds over the ranks anyway is enough. The one that is whole
 * has a part of its gradient on each rank.
 */
export class Adapter {
  readonly #env: StageEnv;
  readonly #weights: AdapterWeights;
  /** A x, computed again for the backward: it costs rank / outputs of a product. */
  readonly #low: Tensor;
  /** scale * B' dy, from `dgrad` to `wgrad`; where neither A nor B is trained, nobody needs it for so long. */
  readonly #dLow: Tensor;

  constructor(env: StageEnv, weights: AdapterWeights) {
    const width = weights.parts.length * weights.rank;
    this.#env = env;
    this.#weights = weights;
    this.#low = env.scratch(`adapter.low.${width}`, [env.sizes.tokens, width]);
    const trained = [weights.a, ...weights.parts.map(({ b }) => b)].some(({ grad }) => grad !== null);
    this.#dLow = trained ? env.scratch(`adapter.dLow.${width}`, [env.sizes.tokens, width]) : this.#low;
  }

  /** Adds to y. */
  forward(x: Tensor, y: Tensor): void {
    const { a, parts, rank, scale } = this.#weights;
    const { ops } = this.#env;
    ops.linear(x, a.data, this.#low);
    for (const [i, { b, column }] of parts.entries()) {
      const low = this.#low.columns(i * rank, rank);
      ops.gemm(low, b.data, y.columns(column, b.data.shape[0]), { tb: true, alpha: scale, beta: 1 });
    }
  }

  /** Adds to dx. */
  dgrad(dy: Tensor, dx: Tensor): void {
    const { a, parts, rank, scale } = this.#weights;
    const { ops } = this.#env;
    for (const [i, { b, column }] of parts.entries()) {
      ops.gemm(dy.columns(column, b.data.shape[0]), b.data, this.#dLow.columns(i * rank, rank), { alpha: scale });
    }
    ops.gemm(this.#dLow, a.data, dx, { beta: 1 });
  }

  /** The gradients of A and B. Follows `dgrad` of the same `dy`. */
  wgrad(dy: Tensor, x: Tensor): void {
    if (this.#dLow === this.#low) return;
    const { a, parts, rank, scale } = this.#weights;
    const { ops } = this.#env;
    ops.linear(x, a.data, this.#low);
    for (const [i, { b, column }] of parts.entries()) {
      if (b.grad === null) continue;
      const options = { ta: true, alpha: scale, beta: b.claim() ? 1 : 0 };
      ops.gemm(dy.columns(column, b.data.shape[0]), this.#low.columns(i * rank, rank), b.grad, options);
    }
    if (a.grad !== null) ops.linearWgrad(this.#dLow, x, a.grad, a.claim());
  }
}

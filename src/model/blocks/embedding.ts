import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

/** Token embedding, vocabulary rows sharded over tp. */
export class Embedding {
  readonly #env: StageEnv;
  readonly #weight: Weight;
  readonly #tokens: PerMicroBatch;
  readonly #order: PerMicroBatch;
  readonly #wide: Tensor;
  /** The padding token's row in the gradient here, kept out of `backward`; null where there is none. */
  readonly #padding: { readonly row: number; readonly kept: Tensor } | null;

  constructor(env: StageEnv, weight: Weight, tokens: PerMicroBatch, order: PerMicroBatch) {
    const shape = [env.sizes.tokens, env.shape.hiddenSize];
    this.#env = env;
    this.#weight = weight;
    this.#tokens = tokens;
    this.#order = order;
    this.#wide = env.scratch('wide', shape);
    const row = (env.shape.padTokenId ?? -1) - env.sizes.vocabStart;
    const here = row >= 0 && row < env.sizes.vocab;
    this.#padding = here ? { row, kept: env.plan.tensor('workspace', [env.shape.hiddenSize], 'f32') } : null;
  }

  /** @param out [localTokens, hidden] */
  forward(microBatch: number, out: Tensor): void {
    const { ops, tp, sizes } = this.#env;
    const ids = this.#tokens(microBatch);
    const partial = tp.sequenceParallel ? this.#wide : out;
    ops.embed(ids, this.#weight.data, partial, sizes.vocabStart);
    tp.reduce(partial, out);
  }

  /** @param dy gradient of the output, of all tokens */
  backward(microBatch: number, dy: Tensor): void {
    const { ops, sizes } = this.#env;
    const padding = this.#padding;
    const { grad } = this.#weight;
    if (grad === null) return;
    if (!this.#weight.claim()) ops.fill(grad, 0);
    // As torch's padding_idx: what a tied head added to the row stays.
    if (padding !== null) ops.device.copy(grad.rows(padding.row, 1), padding.kept);
    ops.embedBwd(this.#tokens(microBatch), this.#order(microBatch), dy, grad, sizes.vocabStart);
    if (padding !== null) ops.device.copy(padding.kept, grad.rows(padding.row, 1));
  }
}

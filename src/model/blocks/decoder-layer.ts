import type { Tensor } from '../../engine/tensor.js';
import { Attention, type AttentionInputs, type AttentionWeights } from './attention.js';
import { Mlp, type MlpWeights } from './mlp.js';
import type { Fp8 } from './fp8-product.js';
import type { ResidualStream } from './residual-norm.js';
import type { StageEnv } from './stage-env.js';

/** One decoder layer: attention and SwiGLU, each on the normalised residual stream. */
export class DecoderLayer {
  readonly #attention: Attention;
  readonly #mlp: Mlp;
  readonly #env: StageEnv;

  /**
   * @param slots micro-batches in flight between a forward and its backward
   * @param inputSlots micro-batches whose input must be held (more than `slots` where inputs are received early)
   * @param fp8 how its products are in e4m3; null for not
   */
  constructor(
    env: StageEnv,
    weights: { attention: AttentionWeights; mlp: MlpWeights },
    slots: number,
    inputSlots: number,
    inputs: AttentionInputs,
    fp8: Fp8 | null,
  ) {
    this.#env = env;
    this.#attention = new Attention(env, weights.attention, slots, inputSlots, inputs, fp8);
    this.#mlp = new Mlp(env, weights.mlp, slots, fp8);
  }

  /** Where the input of a micro-batch goes when it comes from outside (embedding or previous stage). */
  input(microBatch: number): Tensor {
    return this.#attention.norm.x(microBatch);
  }

  forward(microBatch: number, input: ResidualStream): ResidualStream {
    return this.#mlp.forward(microBatch, this.#attention.forward(microBatch, input));
  }

  /** Arguments and result as {@link Attention.backward}. */
  backward(microBatch: number, dStream: Tensor, dy: Tensor, gathers: boolean): Tensor {
    if (this.#env.recompute === 'full') {
      this.#attention.recompute(microBatch);
      this.#mlp.recompute(microBatch, this.#attention.output(microBatch));
    }
    const between = this.#mlp.backward(microBatch, dStream, dy);
    return this.#attention.backward(microBatch, dStream, between, gathers);
  }
}

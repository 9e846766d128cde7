import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import { Adapter, type AdapterWeights } from './adapter.js';
import type { StageEnv } from './stage-env.js';

/** What a product multiplies by, and what it adds. */
export interface LinearWeights {
  /** [outputs, inputs] */
  readonly weight: Weight;
  /** [outputs], of this rank; null for none. */
  readonly bias: Weight | null;
  /** What stands beside the weight; null for none. */
  readonly adapter: AdapterWeights | null;
}

/** The one place that multiplies by a weight: y = x W' + b, and what it gives back to x, W and b. */
export class Linear {
  readonly #env: StageEnv;
  readonly #weight: Weight;
  readonly #bias: Weight | null;
  readonly #adapter: Adapter | null;

  constructor(env: StageEnv, { weight, bias, adapter }: LinearWeights) {
    this.#env = env;
    this.#weight = weight;
    this.#bias = bias;
    this.#adapter = adapter && new Adapter(env, adapter);
  }

  /** @param x [tokens, inputs] @param y receives [tokens, outputs] */
  forward(x: Tensor, y: Tensor): void {
    const { ops } = this.#env;
    ops.linear(x, this.#weight.data, y);
    this.#adapter?.forward(x, y);
    if (this.#bias !== null) ops.biasAdd(y, this.#bias.data);
  }

  /** @param dy [tokens, outputs] @param dx receives [tokens, inputs] */
  dgrad(dy: Tensor, dx: Tensor): void {
    this.#env.ops.linearDgrad(dy, this.#weight.data, dx);
    this.#adapter?.dgrad(dy, dx);
  }

  /**
   * The gradients of weight, bias and adapter; nothing for a frozen one. Follows `dgrad` of the same `dy`.
   * @param x gives the input of `forward`; asked for only where it is wanted, since it may still be on its way
   */
  wgrad(dy: Tensor, x: () => Tensor): void {
    const [env, weight, bias] = [this.#env, this.#weight, this.#bias];
    this.#adapter?.wgrad(dy, x());
    if (weight.grad !== null) env.ops.linearWgrad(dy, x(), weight.grad, weight.claim());
    if (bias?.grad) env.ops.biasGrad(dy, bias.grad, env.reduceWorkspace(bias.data.size), bias.claim());
  }
}

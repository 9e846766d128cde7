import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import type { StageEnv } from './stage-env.js';

/** What a product multiplies by. */
export interface LinearWeights {
  /** [outputs, inputs] */
  readonly weight: Weight;
}

/** The one place that multiplies by a weight: y = x W', and what it gives back to x and W. */
export class Linear {
  readonly #env: StageEnv;
  readonly #weight: Weight;

  constructor(env: StageEnv, { weight }: LinearWeights) {
    this.#env = env;
    this.#weight = weight;
  }

  /** @param x [tokens, inputs] @param y receives [tokens, outputs] */
  forward(x: Tensor, y: Tensor): void {
    this.#env.ops.linear(x, this.#weight.data, y);
  }

  /** @param dy [tokens, outputs] @param dx receives [tokens, inputs] */
  dgrad(dy: Tensor, dx: Tensor): void {
    this.#env.ops.linearDgrad(dy, this.#weight.data, dx);
  }

  /**
   * The weight's gradient; nothing for a frozen one.
   * @param x gives the input of `forward`; asked for only where it is wanted, since it may still be on its way
   */
  wgrad(dy: Tensor, x: () => Tensor): void {
    const weight = this.#weight;
    if (weight.grad !== null) this.#env.ops.linearWgrad(dy, x(), weight.grad, weight.claim());
  }
}

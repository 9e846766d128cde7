import { Tensor } from '../../engine/tensor.js';
import type { Quantized } from '../../engine/fp8-ops.js';
import type { Weight } from '../parameters/parameter.js';
import { Adapter, type AdapterWeights } from './adapter.js';
import { Fp8Product, type Fp8, type Operand } from './fp8-product.js';
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

/**
 * The one place that multiplies by a weight: y = x W' + b, and what it gives back to x, W and b. Where its products are in
 * e4m3 it quantises x and dy, or takes them as an op has quantised them.
 */
export class Linear {
  readonly #env: StageEnv;
  readonly #weight: Weight;
  readonly #bias: Weight | null;
  readonly #adapter: Adapter | null;
  readonly #fp8: Fp8Product | null;

  /** @param fp8 how the products are in e4m3; null for not */
  constructor(env: StageEnv, { weight, bias, adapter }: LinearWeights, fp8: Fp8 | null = null) {
    this.#env = env;
    this.#weight = weight;
    this.#bias = bias;
    this.#adapter = adapter && new Adapter(env, adapter);
    this.#fp8 = fp8 && new Fp8Product(env, weight.data, fp8);
  }

  /** Where the op that makes dy may write e4m3 of it in place of dy, until `wgrad`; null where dy itself is needed. */
  get quantizedDy(): Quantized | null {
    return this.#fp8?.wgrad === true && this.#bias === null ? this.#fp8.dy : null;
  }

  /**
   * @param x [tokens, inputs]
   * @param y receives [tokens, outputs]
   * @param into where e4m3 of x goes, which `wgrad` is given then; null where it is given x
   */
  forward(x: Operand, y: Tensor, into: Quantized | null = null): void {
    const { ops } = this.#env;
    if (this.#fp8 === null) ops.linear(matrix(x), this.#weight.data, y);
    else this.#fp8.forward(x, y, into);
    this.#adapter?.forward(matrix(x), y);
    if (this.#bias !== null) ops.biasAdd(y, this.#bias.data);
  }

  /** @param dy [tokens, outputs] @param dx receives [tokens, inputs] */
  dgrad(dy: Operand, dx: Tensor): void {
    if (this.#fp8 === null) this.#env.ops.linearDgrad(matrix(dy), this.#weight.data, dx);
    else this.#fp8.dgrad(dy, dx);
    this.#adapter?.dgrad(matrix(dy), dx);
  }

  /**
   * The gradients of weight, bias and adapter; nothing for a frozen one. Follows `dgrad` of the same `dy`.
   * @param x gives the input of `forward`; asked for only where it is wanted, since it may still be on its way
   */
  wgrad(dy: Operand, x: () => Operand): void {
    const [env, weight, bias] = [this.#env, this.#weight, this.#bias];
    this.#adapter?.wgrad(matrix(dy), matrix(x()));
    if (weight.grad !== null) {
      if (this.#fp8?.wgrad === true) this.#fp8.gradient(x(), weight.grad, weight.claim());
      else env.ops.linearWgrad(matrix(dy), matrix(x()), weight.grad, weight.claim());
    }
    if (bias?.grad) env.ops.biasGrad(matrix(dy), bias.grad, env.reduceWorkspace(bias.data.size), bias.claim());
  }
}

function matrix(operand: Operand): Tensor {
  if (!(operand instanceof Tensor)) throw new Error('this product takes a matrix itself, not its e4m3');
  return operand;
}

import type { Tensor } from '../../engine/tensor.js';
import type { Quantized } from '../../engine/fp8-ops.js';
import type { Pending } from '../parallel/beside.js';
import type { Weight } from '../parameters/parameter.js';
import { savedInput, type Operand } from './fp8-product.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

/**
 * The residual stream between modules: its value is residual + the sum of `partial` over the tensor-parallel ranks. The
 * next norm adds them, so that the sum, the norm and what they send can be one kernel.
 */
export interface ResidualStream {
  readonly residual: Tensor;
  /** [tokens, hidden], what this rank's weights contribute; null for none. */
  readonly partial: Tensor | null;
}

/**
 * Adds a pending contribution to the residual stream and normalises the sum (RMSNorm, float32 inside). Between layers a
 * rank holds its own tokens, the products on both sides of a norm want all of them: forward ends, and backward begins,
 * with the exchange.
 */
export class ResidualNorm {
  /** The sum: what the module adds its own output to. Also where a stage's input is put, when nothing is to be added. */
  readonly x: PerMicroBatch;
  readonly #env: StageEnv;
  readonly #weight: Weight;
  readonly #y: PerMicroBatch;
  readonly #kept: ((microBatch: number) => Quantized) | null;
  readonly #rstd: PerMicroBatch;
  readonly #temp: { full: Tensor; narrow: Tensor; dyFull: Tensor };

  /**
   * @param keepInput slots of the sum when `full` recompute may not drop it (it is a layer's input), else null
   * @param fp8 whether backward takes the output in e4m3 alone: then that is kept in its place. Not of a part of the
   *   tokens, whose e4m3 cannot be gathered, nor where it is made again anyway.
   */
  constructor(env: StageEnv, key: string, weight: Weight, slots: number, keepInput: number | null, fp8 = false) {
    const rows = env.sizes.localTokens;
    const shape = [rows, env.shape.hiddenSize];
    this.#env = env;
    this.#weight = weight;
    this.x = env.saved(`${key}.x`, shape, keepInput ?? slots, keepInput === null ? 'full' : 'never');
    const keeps = fp8 && !env.tp.sequenceParallel && !env.drops('norm');
    this.#kept = keeps ? savedInput(env, 'norm.y.t', env.shape.hiddenSize, slots, 'full') : null;
    const y = keeps ? env.scratch('norm.y', shape) : null;
    this.#y = y === null ? env.saved('norm.y', shape, slots, 'norm') : () => y;
    this.#rstd = env.saved(`${key}.rstd`, [rows], slots, 'full', 'f32');
    const wide = [env.sizes.tokens, env.shape.hiddenSize];
    this.#temp = {
      full: env.scratch('full', wide),
      narrow: env.scratch('narrow', shape),
      dyFull: env.scratch('dyFull', wide),
    };
  }

  /** @returns the normalised sum of all tokens, [tokens, hidden] */
  forward(microBatch: number, { residual, partial }: ResidualStream): Tensor {
    const { ops, tp, shape } = this.#env;
    const { full, narrow } = this.#temp;
    const [x, y, rstd, w] = [this.x(microBatch), this.#y(microBatch), this.#rstd(microBatch), this.#weight.data];
    if (partial !== null && tp.fuses(partial, full)) {
      tp.addNormGather({ partial, residual, w, sum: x, y, full, rstd }, shape.rmsNormEps);
      return full;
    }
    if (partial === null) ops.rmsnorm(x, w, y, rstd, shape.rmsNormEps);
    else ops.addRmsnorm(residual, tp.reduce(partial, narrow), w, x, y, rstd, shape.rmsNormEps);
    return tp.gather(y, full);
  }

  /** Where the product that takes `forward`'s result is to leave it in e4m3; null where that is not kept. */
  kept(microBatch: number): Quantized | null {
    return this.#kept?.(microBatch) ?? null;
  }

  /** The output of `forward` again, as backward takes it, on its way while other work goes on. */
  startOutput(microBatch: number): { wait(): Operand } {
    const { ops, tp, shape } = this.#env;
    const kept = this.kept(microBatch);
    if (kept !== null) return { wait: () => ({ q: null, t: kept.t }) };
    const y = this.#y(microBatch);
    if (this.#env.drops('norm')) {
      ops.rmsnorm(this.x(microBatch), this.#weight.data, y, this.#rstd(microBatch), shape.rmsNormEps);
    }
    return tp.startGather(y, this.#temp.full);
  }

  /**
   * Adds the gradient that comes through the norm to the residual stream's, while other work goes on.
   * @param partial [tokens, hidden], this rank's contribution to the gradient of `forward`'s result
   * @param dStream gradient of the sum at this rank's tokens, updated in place
   * @param gathers whether the result is to be `dStream` of all tokens; else it is `dStream` itself
   */
  startBackward(microBatch: number, partial: Tensor, dStream: Tensor, gathers: boolean): Pending {
    const [env, weight] = [this.#env, this.#weight];
    const { tp } = env;
    const { narrow, dyFull } = this.#temp;
    if (tp.fuses(partial, dyFull)) {
      const full = gathers ? dyFull : null;
      const tensors = { partial, ...this.#backwardTensors(microBatch, dStream), full };
      return tp.startNormBackwardGather(full ?? dStream, tensors, { dx: true, dw: weight.claim() });
    }
    const dy = tp.startReduce(partial, narrow);
    return {
      wait: () => {
        this.backward(microBatch, dy.wait(), dStream);
        return gathers ? tp.gather(dStream, dyFull) : dStream;
      },
    };
  }

  /**
   * The same from the whole gradient at this rank's tokens, at once.
   * @param dStream overwritten where `overwrite`
   */
  backward(microBatch: number, dy: Tensor, dStream: Tensor, overwrite = false): void {
    const accumulate = { dx: !overwrite, dw: this.#weight.claim() };
    this.#env.ops.rmsnormBwd({ dy, ...this.#backwardTensors(microBatch, dStream) }, accumulate);
  }

  #backwardTensors(
    microBatch: number,
    dx: Tensor,
  ): { x: Tensor; w: Tensor; rstd: Tensor; dx: Tensor; dw: Tensor | null; ws: Tensor } {
    const [weight, env] = [this.#weight, this.#env];
    const ws = env.reduceWorkspace(env.shape.hiddenSize);
    return { x: this.x(microBatch), w: weight.data, rstd: this.#rstd(microBatch), dx, dw: weight.grad, ws };
  }
}

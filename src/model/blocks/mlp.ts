import { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import { swigluBwdFp8, swigluFp8, type Quantized } from '../../engine/fp8-ops.js';
import { savedInput, type Fp8, type Operand } from './fp8-product.js';
import { Linear, type LinearWeights } from './linear.js';
import { ResidualNorm, type ResidualStream } from './residual-norm.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

export interface MlpWeights {
  norm: Weight;
  /** Rows: gate then up, of this rank's share of the intermediate size. */
  gateUp: LinearWeights;
  /** [hidden, ffn] */
  down: LinearWeights;
}

/** Norm, fused gate and up projection (column parallel), SwiGLU, down projection (row parallel). */
export class Mlp {
  readonly norm: ResidualNorm;
  readonly #env: StageEnv;
  readonly #linears: { readonly gateUp: Linear; readonly down: Linear };
  readonly #gateUp: PerMicroBatch;
  /** The output of SwiGLU: itself, or in e4m3 alone. */
  readonly #act: { readonly plain: PerMicroBatch } | { readonly quantized: (microBatch: number) => Quantized };
  readonly #temp: { wide: Tensor; dAct: Tensor };

  /** @param fp8 how its products are in e4m3; null for not */
  constructor(env: StageEnv, weights: MlpWeights, slots: number, fp8: Fp8 | null = null) {
    const { tokens, ffn } = env.sizes;
    const { hiddenSize } = env.shape;
    this.#env = env;
    this.#linears = { gateUp: new Linear(env, weights.gateUp, fp8), down: new Linear(env, weights.down, fp8) };
    const quantized = fp8?.wgrad === true;
    // Where the products of gate and up are made again, they are from the output of the norm.
    this.norm = new ResidualNorm(env, 'mlp.norm', weights.norm, slots, null, quantized && !env.recomputes('mlp'));
    this.#gateUp = env.saved('mlp.gateUp', [tokens, 2 * ffn], slots, 'mlp');
    this.#act = quantized
      ? { quantized: savedInput(env, 'mlp.act.t', ffn, slots, 'swiglu') }
      : { plain: env.saved('mlp.act', [tokens, ffn], slots, 'swiglu') };
    this.#temp = {
      wide: env.scratch('wide', [tokens, hiddenSize]),
      dAct: env.scratch('dAct', [tokens, ffn]),
    };
  }

  forward(microBatch: number, input: ResidualStream): ResidualStream {
    const partial = this.#temp.wide;
    this.#linears.down.forward(this.#hidden(microBatch, this.norm.forward(microBatch, input)), partial);
    return { residual: this.norm.x(microBatch), partial };
  }

  /** Under `full` recompute: the forward up to the activation. */
  recompute(microBatch: number, input: ResidualStream): void {
    this.#hidden(microBatch, this.norm.forward(microBatch, input));
  }

  /**
   * @param dStream gradient of the residual stream after this module, becomes that before it
   * @param dy the same of all tokens
   * @returns what `dStream` becomes, of all tokens
   */
  backward(microBatch: number, dStream: Tensor, dy: Tensor): Tensor {
    const [env, linears, temp] = [this.#env, this.#linears, this.#temp];
    const gateUp = this.#gateUp(microBatch);
    const normed = this.norm.startOutput(microBatch);
    if (env.recomputes('mlp')) linears.gateUp.forward(normed.wait(), gateUp);
    if (env.recomputes('swiglu')) this.#activate(microBatch);
    linears.down.dgrad(dy, temp.dAct);
    linears.down.wgrad(dy, () => this.#activated(microBatch));
    const dGateUp = linears.gateUp.quantizedDy ?? gateUp;
    if (dGateUp === gateUp) env.ops.swigluBwd(temp.dAct, gateUp, gateUp);
    else swigluBwdFp8(env.ops.device, temp.dAct, gateUp, dGateUp as Quantized);
    linears.gateUp.dgrad(dGateUp, temp.wide);
    const dx = this.norm.startBackward(microBatch, temp.wide, dStream, true);
    linears.gateUp.wgrad(dGateUp, () => normed.wait());
    return dx.wait();
  }

  #hidden(microBatch: number, normed: Tensor): Operand {
    this.#linears.gateUp.forward(normed, this.#gateUp(microBatch), this.norm.kept(microBatch));
    return this.#activate(microBatch);
  }

  /** SwiGLU of gate and up, as the down projection takes it. */
  #activate(microBatch: number): Operand {
    const { ops } = this.#env;
    const [gateUp, act] = [this.#gateUp(microBatch), this.#activated(microBatch)];
    if (act instanceof Tensor) ops.swiglu(gateUp, act);
    else swigluFp8(ops.device, gateUp, act);
    return act;
  }

  #activated(microBatch: number): Operand {
    return 'plain' in this.#act ? this.#act.plain(microBatch) : this.#act.quantized(microBatch);
  }
}

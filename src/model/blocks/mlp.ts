import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
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
  readonly #act: PerMicroBatch;
  readonly #temp: { wide: Tensor; dAct: Tensor };

  constructor(env: StageEnv, weights: MlpWeights, slots: number) {
    const { tokens, ffn } = env.sizes;
    const { hiddenSize } = env.shape;
    this.#env = env;
    this.#linears = { gateUp: new Linear(env, weights.gateUp), down: new Linear(env, weights.down) };
    this.norm = new ResidualNorm(env, 'mlp.norm', weights.norm, slots, null);
    this.#gateUp = env.saved('mlp.gateUp', [tokens, 2 * ffn], slots, 'mlp');
    this.#act = env.saved('mlp.act', [tokens, ffn], slots, 'swiglu');
    this.#temp = {
      wide: env.scratch('wide', [tokens, hiddenSize]),
      dAct: env.scratch('dAct', [tokens, ffn]),
    };
  }

  forward(microBatch: number, input: ResidualStream): ResidualStream {
    const partial = this.#temp.wide;
    this.#hidden(microBatch, this.norm.forward(microBatch, input));
    this.#linears.down.forward(this.#act(microBatch), partial);
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
    const { ops } = env;
    const [gateUp, act] = [this.#gateUp(microBatch), this.#act(microBatch)];
    const normed = this.norm.startOutput(microBatch);
    if (env.recomputes('mlp')) linears.gateUp.forward(normed.wait(), gateUp);
    if (env.recomputes('swiglu')) ops.swiglu(gateUp, act);
    linears.down.dgrad(dy, temp.dAct);
    linears.down.wgrad(dy, () => act);
    ops.swigluBwd(temp.dAct, gateUp, gateUp);
    linears.gateUp.dgrad(gateUp, temp.wide);
    const dx = this.norm.startBackward(microBatch, temp.wide, dStream, true);
    linears.gateUp.wgrad(gateUp, () => normed.wait());
    return dx.wait();
  }

  #hidden(microBatch: number, normed: Tensor): void {
    const env = this.#env;
    const gateUp = this.#gateUp(microBatch);
    this.#linears.gateUp.forward(normed, gateUp);
    env.ops.swiglu(gateUp, this.#act(microBatch));
  }
}

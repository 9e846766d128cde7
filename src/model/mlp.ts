import type { Tensor } from '../engine/tensor.js';
import type { Weight } from './parameter.js';
import { ResidualNorm, type Stream } from './residual-norm.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

export interface MlpWeights {
  norm: Weight;
  /** Rows: gate then up, of this rank's share of the intermediate size. */
  gateUp: Weight;
  /** [hidden, ffn] */
  down: Weight;
}

/** Norm, fused gate and up projection (column parallel), SwiGLU, down projection (row parallel). */
export class Mlp {
  readonly norm: ResidualNorm;
  private readonly env: StageEnv;
  private readonly weights: MlpWeights;
  private readonly gateUp: PerMicroBatch;
  private readonly act: PerMicroBatch;
  private readonly temp: { full: Tensor; wide: Tensor; narrow: Tensor; dyFull: Tensor; dAct: Tensor };

  constructor(env: StageEnv, weights: MlpWeights, slots: number) {
    const { tokens, localTokens, ffn } = env.sizes;
    const { hiddenSize } = env.shape;
    this.env = env;
    this.weights = weights;
    this.norm = new ResidualNorm(env, 'mlp.norm', weights.norm, slots, null);
    this.gateUp = env.saved('mlp.gateUp', [tokens, 2 * ffn], slots, 'full');
    this.act = env.saved('mlp.act', [tokens, ffn], slots, 'selective');
    this.temp = {
      full: env.scratch('full', [tokens, hiddenSize]),
      wide: env.scratch('wide', [tokens, hiddenSize]),
      narrow: env.scratch('narrow', [localTokens, hiddenSize]),
      dyFull: env.scratch('dyFull', [tokens, hiddenSize]),
      dAct: env.scratch('dAct', [tokens, ffn]),
    };
  }

  forward(microBatch: number, input: Stream): Stream {
    const { ops, tp } = this.env;
    const { wide, narrow } = this.temp;
    this.hidden(microBatch, this.norm.forward(microBatch, input));
    ops.linear(this.act(microBatch), this.weights.down.data, wide);
    return { residual: this.norm.x(microBatch), delta: tp.reduce(wide, narrow) };
  }

  /** Under `full` recompute: the forward up to the activation. */
  recompute(microBatch: number, input: Stream): void {
    this.hidden(microBatch, this.norm.forward(microBatch, input));
  }

  /** @param dStream gradient of the residual stream after this module, becomes that before it */
  backward(microBatch: number, dStream: Tensor): void {
    const { env, weights, temp } = this;
    const { ops, tp } = env;
    const { gateUp: wGateUp, down: wDown } = weights;
    const [gateUp, act] = [this.gateUp(microBatch), this.act(microBatch)];
    const dy = tp.gather(dStream, temp.dyFull);
    const normed = tp.startGather(this.norm.output(microBatch), temp.full);
    if (env.recompute === 'selective') ops.swiglu(gateUp, act);
    ops.linearDgrad(dy, wDown.data, temp.dAct);
    if (wDown.grad !== null) ops.linearWgrad(dy, act, wDown.grad, wDown.accumulates());
    ops.swigluBwd(temp.dAct, gateUp, gateUp);
    ops.linearDgrad(gateUp, wGateUp.data, temp.wide);
    const dx = tp.startReduce(temp.wide, temp.narrow);
    if (wGateUp.grad !== null) ops.linearWgrad(gateUp, normed.wait(), wGateUp.grad, wGateUp.accumulates());
    this.norm.backward(microBatch, dx.wait(), dStream);
  }

  private hidden(microBatch: number, normed: Tensor): void {
    const { env } = this;
    const gateUp = this.gateUp(microBatch);
    env.ops.linear(env.tp.gather(normed, this.temp.full), this.weights.gateUp.data, gateUp);
    env.ops.swiglu(gateUp, this.act(microBatch));
  }
}

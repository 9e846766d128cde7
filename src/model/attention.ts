import type { AttentionSizes } from '../engine/ops.js';
import type { Strided, Tensor } from '../engine/tensor.js';
import type { Weight } from './parameter.js';
import { ResidualNorm, type Stream } from './residual-norm.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

export interface AttentionWeights {
  norm: Weight;
  /** Rows: query, key and value heads of this rank. */
  qkv: Weight;
  qNorm: Weight;
  kNorm: Weight;
  /** [hidden, qWidth] */
  out: Weight;
}

/** Norm, fused q/k/v projection (column parallel), q/k-norm and RoPE, causal attention, output (row parallel). */
export class Attention {
  readonly norm: ResidualNorm;
  private readonly env: StageEnv;
  private readonly weights: AttentionWeights;
  private readonly raw: PerMicroBatch;
  private readonly qkv: PerMicroBatch;
  private readonly headRstd: PerMicroBatch;
  private readonly out: PerMicroBatch;
  private readonly lse: PerMicroBatch;
  private readonly positions: PerMicroBatch;
  private readonly sizes: AttentionSizes;
  private readonly temp: { wide: Tensor; dQkv: Tensor; dOut: Tensor };

  constructor(
    env: StageEnv,
    weights: AttentionWeights,
    slots: number,
    keepInput: number | null,
    positions: PerMicroBatch,
  ) {
    const { tokens, heads, kvHeads, qWidth, qkvWidth, batch, seq } = env.sizes;
    const { hiddenSize, headDim } = env.shape;
    this.env = env;
    this.weights = weights;
    this.positions = positions;
    this.norm = new ResidualNorm(env, 'attention.norm', weights.norm, slots, keepInput);
    this.raw = env.saved('attention.raw', [tokens, qkvWidth], slots, 'full');
    this.qkv = env.saved('attention.qkv', [tokens, qkvWidth], slots, 'selective');
    this.headRstd = env.saved('attention.rstd', [tokens, heads + kvHeads], slots, 'full', 'f32');
    this.out = env.saved('attention.out', [tokens, qWidth], slots, 'full');
    this.lse = env.saved('attention.lse', [batch, heads, seq], slots, 'full', 'f32');
    this.sizes = { batch, seq, heads, kvHeads, headDim, deterministic: env.deterministic };
    this.temp = {
      wide: env.scratch('wide', [tokens, hiddenSize]),
      dQkv: env.scratch('dQkv', [tokens, qkvWidth]),
      dOut: env.scratch('dOut', [tokens, qWidth]),
    };
  }

  forward(microBatch: number, input: Stream): Stream {
    this.core(microBatch, this.norm.forward(microBatch, input));
    return this.output(microBatch);
  }

  /** Under `full` recompute: everything that the forward would have kept, from the layer's input. */
  recompute(microBatch: number): void {
    this.core(microBatch, this.norm.startOutput(microBatch).wait());
  }

  /** The output projection alone: all that `forward` does after the attention itself. */
  output(microBatch: number): Stream {
    const partial = this.temp.wide;
    this.env.ops.linear(this.out(microBatch), this.weights.out.data, partial);
    return { residual: this.norm.x(microBatch), partial };
  }

  /**
   * @param dStream gradient of the residual stream after this module, becomes that before it
   * @param dy the same of all tokens
   * @param gathers whether the result is what `dStream` becomes, of all tokens; else it is `dStream` itself
   */
  backward(microBatch: number, dStream: Tensor, dy: Tensor, gathers: boolean): Tensor {
    const { env, weights, temp } = this;
    const { ops } = env;
    const { qkv: wQkv, out: wOut, qNorm, kNorm } = weights;
    const normed = this.norm.startOutput(microBatch);
    ops.linearDgrad(dy, wOut.data, temp.dOut);
    if (wOut.grad !== null) ops.linearWgrad(dy, this.out(microBatch), wOut.grad, wOut.accumulates());
    if (env.recompute !== 'none') this.rope(microBatch);
    const [lse, dQkv] = [this.lse(microBatch), temp.dQkv];
    const [dq, dk, dv] = this.heads(dQkv);
    const [q, k, v] = this.heads(this.qkv(microBatch));
    const [out, dout] = [this.out(microBatch).columns(), temp.dOut.columns()];
    ops.attentionBwd({ q, k, v, out, lse, dout, dq, dk, dv, ws: env.attentionWorkspace }, this.sizes);
    const { heads, kvHeads, tokens } = env.sizes;
    const [accumulate] = [qNorm.accumulates(), kNorm.accumulates()];
    ops.qknormRopeBwd(
      {
        dqkv: dQkv,
        qkv: this.raw(microBatch),
        wq: qNorm.data,
        wk: kNorm.data,
        table: env.ropeTable,
        positions: this.positions(microBatch),
        rstd: this.headRstd(microBatch),
        dwq: gradient(qNorm),
        dwk: gradient(kNorm),
        ws: env.reduceWorkspace(2 * env.shape.headDim),
      },
      { tokens, heads, kvHeads, headDim: env.shape.headDim },
      accumulate,
    );
    ops.linearDgrad(dQkv, wQkv.data, temp.wide);
    const dx = this.norm.startBackward(microBatch, temp.wide, dStream, gathers);
    if (wQkv.grad !== null) ops.linearWgrad(dQkv, normed.wait(), wQkv.grad, wQkv.accumulates());
    return dx.wait();
  }

  private core(microBatch: number, normed: Tensor): void {
    const { env } = this;
    env.ops.linear(normed, this.weights.qkv.data, this.raw(microBatch));
    this.rope(microBatch);
    const [q, k, v] = this.heads(this.qkv(microBatch));
    const [out, lse] = [this.out(microBatch).columns(), this.lse(microBatch)];
    env.ops.attention({ q, k, v, out, lse, ws: env.attentionWorkspace }, this.sizes);
  }

  /** Columns of queries, keys and values in the fused projection. */
  private heads(qkv: Tensor): [q: Strided, k: Strided, v: Strided] {
    const { kvHeads, qWidth } = this.env.sizes;
    const kvWidth = kvHeads * this.env.shape.headDim;
    return [qkv.columns(0, qWidth), qkv.columns(qWidth, kvWidth), qkv.columns(qWidth + kvWidth, kvWidth)];
  }

  private rope(microBatch: number): void {
    const { env, weights } = this;
    const { heads, kvHeads, tokens } = env.sizes;
    env.ops.qknormRope(
      {
        qkv: this.raw(microBatch),
        wq: weights.qNorm.data,
        wk: weights.kNorm.data,
        table: env.ropeTable,
        positions: this.positions(microBatch),
        out: this.qkv(microBatch),
        rstd: this.headRstd(microBatch),
      },
      { tokens, heads, kvHeads, headDim: env.shape.headDim, eps: env.shape.rmsNormEps },
    );
  }
}

function gradient(weight: Weight): Tensor {
  if (weight.grad === null) throw new Error('backward of a frozen model');
  return weight.grad;
}

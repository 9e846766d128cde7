import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import { LocalAttention, type AttentionCore, type CoreTensors } from './attention-core.js';
import { ContextAttention } from './context-attention.js';
import type { Fp8, Operand } from './fp8-product.js';
import { Linear, type LinearWeights } from './linear.js';
import { ResidualNorm, type ResidualStream } from './residual-norm.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

export interface AttentionWeights {
  norm: Weight;
  /** Rows: query, key and value heads of this rank. */
  qkv: LinearWeights;
  /** Norms of every head of q and k, of width headDim; null in a family that has none. */
  heads: { q: Weight; k: Weight } | null;
  /** [hidden, qWidth] */
  out: LinearWeights;
}

/** What a micro-batch says of its tokens' places. */
export interface AttentionInputs {
  /** i32 [tokens] */
  readonly positions: PerMicroBatch;
  /** See {@link CoreTensors}. */
  readonly bounds: PerMicroBatch | null;
}

/** Norm, fused q/k/v projection (column parallel), norms of heads, RoPE, causal attention, output (row parallel). */
export class Attention {
  readonly norm: ResidualNorm;
  readonly #env: StageEnv;
  readonly #linears: { readonly qkv: Linear; readonly out: Linear };
  readonly #heads: AttentionWeights['heads'];
  readonly #raw: PerMicroBatch;
  readonly #qkv: PerMicroBatch;
  readonly #headRstd: PerMicroBatch | null;
  readonly #out: PerMicroBatch;
  readonly #lse: PerMicroBatch;
  readonly #inputs: AttentionInputs;
  readonly #core: AttentionCore;
  readonly #temp: { wide: Tensor; dQkv: Tensor; dOut: Tensor };

  constructor(
    env: StageEnv,
    weights: AttentionWeights,
    slots: number,
    keepInput: number | null,
    inputs: AttentionInputs,
    fp8: Fp8 | null,
  ) {
    const { tokens, heads, kvHeads, qWidth, qkvWidth } = env.sizes;
    const { hiddenSize } = env.shape;
    this.#env = env;
    this.#linears = { qkv: new Linear(env, weights.qkv, fp8), out: new Linear(env, weights.out, fp8) };
    this.#heads = weights.heads;
    this.#inputs = inputs;
    this.norm = new ResidualNorm(env, 'attention.norm', weights.norm, slots, keepInput, fp8?.wgrad === true);
    // Without norms the heads are turned in place: their backward needs nothing of what was before.
    const inPlace = weights.heads === null;
    this.#qkv = env.saved('attention.qkv', [tokens, qkvWidth], slots, inPlace ? 'full' : 'rope');
    this.#raw = inPlace ? this.#qkv : env.saved('attention.raw', [tokens, qkvWidth], slots, 'full');
    this.#headRstd = inPlace ? null : env.saved('attention.rstd', [tokens, heads + kvHeads], slots, 'full', 'f32');
    this.#out = env.saved('attention.out', [tokens, qWidth], slots, 'attention');
    this.#lse = env.saved('attention.lse', [tokens * heads], slots, 'attention', 'f32');
    this.#core = env.cp.size === 1 ? new LocalAttention(env) : new ContextAttention(env);
    this.#temp = {
      wide: env.scratch('wide', [tokens, hiddenSize]),
      dQkv: env.scratch('dQkv', [tokens, qkvWidth]),
      dOut: env.scratch('dOut', [tokens, qWidth]),
    };
  }

  forward(microBatch: number, input: ResidualStream): ResidualStream {
    this.#forward(microBatch, this.norm.forward(microBatch, input));
    return this.output(microBatch);
  }

  /** Under `full` recompute: everything that the forward would have kept, from the layer's input. */
  recompute(microBatch: number): void {
    this.#forward(microBatch, this.norm.startOutput(microBatch).wait());
  }

  /** The output projection alone: all that `forward` does after the attention itself. */
  output(microBatch: number): ResidualStream {
    const partial = this.#temp.wide;
    this.#linears.out.forward(this.#out(microBatch), partial);
    return { residual: this.norm.x(microBatch), partial };
  }

  /**
   * @param dStream gradient of the residual stream after this module, becomes that before it
   * @param dy the same of all tokens
   * @param gathers whether the result is what `dStream` becomes, of all tokens; else it is `dStream` itself
   */
  backward(microBatch: number, dStream: Tensor, dy: Tensor, gathers: boolean): Tensor {
    const [env, linears, heads, temp] = [this.#env, this.#linears, this.#heads, this.#temp];
    const { ops } = env;
    const normed = this.norm.startOutput(microBatch);
    if (env.recomputes('rope') && heads !== null) this.#rope(microBatch);
    const [core, { dOut, dQkv }] = [this.#coreTensors(microBatch), temp];
    if (env.recomputes('attention')) this.#core.forward(core);
    this.#core.prepareBackward(core);
    linears.out.dgrad(dy, dOut);
    this.#core.backward({ ...core, dOut, dQkv }, () => linears.out.wgrad(dy, () => core.out));
    const [dwq, dwk] = [heads?.q.grad ?? null, heads?.k.grad ?? null];
    // Both are written by one op, so that they are in the same state.
    const accumulate = [heads?.q, heads?.k].map((weight) => weight?.claim() ?? false).includes(true);
    ops.qknormRopeBwd(
      {
        dqkv: dQkv,
        qkv: heads === null ? null : this.#raw(microBatch),
        wq: heads?.q.data ?? null,
        wk: heads?.k.data ?? null,
        table: env.ropeTable,
        positions: this.#inputs.positions(microBatch),
        rstd: this.#headRstd?.(microBatch) ?? null,
        dwq,
        dwk,
        ws: heads === null ? null : env.reduceWorkspace(2 * env.shape.headDim),
      },
      { tokens: env.sizes.tokens, heads: env.sizes.heads, kvHeads: env.sizes.kvHeads, headDim: env.shape.headDim },
      accumulate,
    );
    linears.qkv.dgrad(dQkv, temp.wide);
    const dx = this.norm.startBackward(microBatch, temp.wide, dStream, gathers);
    linears.qkv.wgrad(dQkv, () => normed.wait());
    return dx.wait();
  }

  #forward(microBatch: number, normed: Operand): void {
    this.#linears.qkv.forward(normed, this.#raw(microBatch), this.norm.kept(microBatch));
    this.#rope(microBatch);
    this.#core.forward(this.#coreTensors(microBatch));
  }

  #coreTensors(microBatch: number): CoreTensors {
    const bounds = this.#inputs.bounds?.(microBatch) ?? null;
    return { qkv: this.#qkv(microBatch), out: this.#out(microBatch), lse: this.#lse(microBatch), bounds };
  }

  #rope(microBatch: number): void {
    const env = this.#env;
    const { heads, kvHeads, tokens } = env.sizes;
    env.ops.qknormRope(
      {
        qkv: this.#raw(microBatch),
        wq: this.#heads?.q.data ?? null,
        wk: this.#heads?.k.data ?? null,
        table: env.ropeTable,
        positions: this.#inputs.positions(microBatch),
        out: this.#qkv(microBatch),
        rstd: this.#headRstd?.(microBatch) ?? null,
      },
      { tokens, heads, kvHeads, headDim: env.shape.headDim, eps: env.shape.rmsNormEps },
    );
  }
}

import type { AttentionSizes } from '../../engine/attention-sizes.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { StageEnv } from './stage-env.js';

/** What the attention between the projections reads and leaves of a micro-batch, of this rank's tokens and heads. */
export interface CoreTensors {
  /** [tokens, qkvWidth]: heads of queries, keys and values, normed and turned. */
  readonly qkv: Tensor;
  /** [tokens, qWidth] */
  readonly out: Tensor;
  /** f32, tokens * heads. */
  readonly lse: Tensor;
  /** i32 [tokens, 2]: which keys of its sequence a token may see, up to itself; null for all of them. */
  readonly bounds: Tensor | null;
}

/** Causal attention over whole sequences, whoever holds their keys. */
export interface AttentionCore {
  forward(t: CoreTensors): void;

  /** Starts what backward needs of other ranks, to be called as soon as `qkv` is there. */
  prepareBackward(t: CoreTensors): void;

  /**
   * @param t.dQkv receives the gradient of `qkv`
   * @param meanwhile work that needs none of it, for while other ranks' gradients are on their way
   */
  backward(t: CoreTensors & { readonly dOut: Tensor; readonly dQkv: Tensor }, meanwhile: () => void): void;
}

/** The attention of a rank that holds whole sequences. */
export class LocalAttention implements AttentionCore {
  readonly #env: StageEnv;
  readonly #sizes: AttentionSizes;

  constructor(env: StageEnv) {
    this.#env = env;
    [this.#sizes] = env.attention as [AttentionSizes];
  }

  forward({ qkv, out, lse, bounds }: CoreTensors): void {
    const { ops, attentionWorkspace: ws } = this.#env;
    const [q, k, v] = columnsOf(this.#env, qkv);
    ops.attention({ q, k, v, out: out.columns(), lse, bounds, ws }, this.#sizes);
  }

  prepareBackward(): void {}

  backward(t: CoreTensors & { dOut: Tensor; dQkv: Tensor }, meanwhile: () => void): void {
    const { ops, attentionWorkspace: ws } = this.#env;
    meanwhile();
    const [dq, dk, dv] = columnsOf(this.#env, t.dQkv);
    const [q, k, v] = columnsOf(this.#env, t.qkv);
    const [out, dout] = [t.out.columns(), t.dOut.columns()];
    ops.attentionBwd({ q, k, v, out, lse: t.lse, bounds: t.bounds, dout, dq, dk, dv, ws }, this.#sizes);
  }
}

/** Columns of queries, keys and values in the fused projection. */
export function columnsOf({ sizes }: StageEnv, qkv: Tensor): [q: Strided, k: Strided, v: Strided] {
  const { qWidth, kvWidth } = sizes;
  return [qkv.columns(0, qWidth), qkv.columns(qWidth, kvWidth), qkv.columns(qWidth + kvWidth, kvWidth)];
}

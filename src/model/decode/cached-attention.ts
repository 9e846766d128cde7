import { attentionDecode, DECODE, kvStore } from '../../engine/decode-ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { AttentionWeights } from '../blocks/attention.js';
import { Linear } from '../blocks/linear.js';
import { ResidualNorm, type ResidualStream } from '../blocks/residual-norm.js';
import type { StageEnv } from '../blocks/stage-env.js';

/** Queries of one call of the attention that needs a workspace for each. */
const QUERIES = 64;

/** Where the tokens of a step go, i32 [rows] each. */
export interface Places {
  readonly cells: Tensor;
  readonly positions: Tensor;
}

/** {@link Attention} of tokens whose predecessors' keys and values are in a cache: forward only, the same products. */
export class CachedAttention {
  readonly norm: ResidualNorm;
  readonly #env: StageEnv;
  readonly #qkv: Linear;
  readonly #out: Linear;
  readonly #heads: AttentionWeights['heads'];
  readonly #cache: { readonly k: Tensor; readonly v: Tensor };
  readonly #places: Places;
  readonly #prompts: boolean;
  readonly #t: { raw: Tensor; qkv: Tensor; rstd: Tensor | null; out: Tensor; wide: Tensor; ws: Tensor | null };

  /** @param prompts whether the tokens are of prompts, not one of each slot */
  constructor(
    env: StageEnv,
    weights: AttentionWeights,
    cache: { k: Tensor; v: Tensor },
    places: Places,
    prompts: boolean,
  ) {
    const { tokens, heads, kvHeads, qWidth, qkvWidth } = env.sizes;
    const { hiddenSize, headDim } = env.shape;
    this.#env = env;
    this.#qkv = new Linear(env, weights.qkv);
    this.#out = new Linear(env, weights.out);
    this.#heads = weights.heads;
    this.#cache = cache;
    this.#places = places;
    this.#prompts = prompts;
    this.norm = new ResidualNorm(env, 'attention.norm', weights.norm, 1, null);
    const inPlace = weights.heads === null;
    const qkv = env.scratch('attention.qkv', [tokens, qkvWidth]);
    const chunks = Math.ceil((cache.k.shape[1] ?? 0) / DECODE.chunkKeys);
    const room = [Math.min(tokens, QUERIES), heads, chunks, headDim + 2];
    this.#t = {
      qkv,
      raw: inPlace ? qkv : env.scratch('attention.raw', [tokens, qkvWidth]),
      rstd: inPlace ? null : env.scratch('attention.rstd', [tokens, heads + kvHeads], 'f32'),
      out: env.scratch('attention.out', [tokens, qWidth]),
      wide: env.scratch('wide', [tokens, hiddenSize]),
      ws: prompts && env.dtype === 'bf16' ? null : env.scratch('decode.ws', room, 'f32'),
    };
  }

  forward(input: ResidualStream): ResidualStream {
    const [env, t] = [this.#env, this.#t];
    const { ops, shape } = env;
    const { tokens, heads, kvHeads, qWidth } = env.sizes;
    const sizes = { heads, kvHeads, headDim: shape.headDim };
    this.#qkv.forward(this.norm.forward(0, input), t.raw);
    const { cells, positions } = this.#places;
    const [wq, wk] = [this.#heads?.q.data ?? null, this.#heads?.k.data ?? null];
    const rope = { qkv: t.raw, wq, wk, table: env.ropeTable, positions, out: t.qkv, rstd: t.rstd };
    ops.qknormRope(rope, { tokens, ...sizes, eps: shape.rmsNormEps });
    kvStore(ops.device, t.qkv, { ...this.#cache, cells, positions }, sizes);
    const most = t.ws === null ? tokens : QUERIES;
    for (let at = 0; at < tokens; at += most) {
      const n = Math.min(most, tokens - at);
      const places = { cells: cells.slice(at, n), positions: positions.slice(at, n) };
      const q = t.qkv.rows(at, n).columns(0, qWidth);
      const tensors = { ...this.#cache, ...places, q, out: t.out.rows(at, n), ws: t.ws };
      attentionDecode(ops.device, tensors, sizes, this.#prompts);
    }
    this.#out.forward(t.out, t.wide);
    return { residual: this.norm.x(0), partial: t.wide };
  }
}

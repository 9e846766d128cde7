import type { AttentionSizes } from '../../engine/attention-sizes.js';
import { accumulate, attentionJoin, shift } from '../../engine/context-ops.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { KeyTurn } from '../parallel/context-parallel.js';
import { columnsOf, type AttentionCore, type CoreTensors } from './attention-core.js';
import { keyExchange, type AddToKeys, type KeyExchange } from './key-exchange.js';
import type { StageEnv } from './stage-env.js';

type BackwardTensors = CoreTensors & { readonly dOut: Tensor; readonly dQkv: Tensor };

/** A chunk's queries and a chunk's keys: which of this rank's two chunks asks, and the keys' place in the sequence. */
interface Block {
  readonly queries: number;
  /** [batch * chunk, 2 * kvWidth] */
  readonly keys: Tensor;
  readonly keyChunk: number;
}

/**
 * The attention of a rank that holds two chunks of every sequence: each chunk's queries attend to their own keys, and to one
 * earlier chunk's after the other; what they find of each is joined. The work with this rank's own chunks comes first, while
 * other ranks' keys are on their way; backward fetches those again behind the gradient of the output projection.
 */
export class ContextAttention implements AttentionCore {
  readonly #env: StageEnv;
  /** A chunk's queries over its own keys, and over all keys of an earlier chunk. */
  readonly #sizes: { readonly causal: AttentionSizes; readonly full: AttentionSizes };
  readonly #exchange: KeyExchange;
  /** Of one block: the output, or the gradient of the queries; and the gradient of own keys. */
  readonly #part: Tensor;
  readonly #lsePart: Tensor;
  readonly #keyPart: Tensor;
  readonly #bounds: Tensor;
  /** f32: what the output, and the gradients of queries, keys and values, are rounded from. */
  readonly #sum: Tensor;
  readonly #keySum: Tensor;
  /** Of each chunk, whether its sum is still to begin. */
  readonly #fresh = { queries: [true, true], keys: [true, true] };

  constructor(env: StageEnv) {
    const { tokens, heads, qWidth, kvWidth } = env.sizes;
    const [chunk, width] = [tokens / 2, 2 * kvWidth];
    const [causal, full] = env.attention as [AttentionSizes, AttentionSizes];
    this.#env = env;
    this.#sizes = { causal, full };
    this.#exchange = keyExchange(env);
    this.#part = env.scratch('context.part', [chunk, qWidth]);
    this.#lsePart = env.scratch('context.lse', [chunk * heads], 'f32');
    this.#keyPart = env.scratch('context.keyPart', [chunk, width]);
    this.#bounds = env.scratch('context.bounds', [chunk, 2], 'i32');
    this.#sum = env.scratch('context.sum', [tokens, qWidth], 'f32');
    this.#keySum = env.scratch('context.keySum', [tokens, width], 'f32');
  }

  forward(t: CoreTensors): void {
    const { ops, attentionWorkspace: ws } = this.#env;
    this.#begin();
    this.#exchange.start(this.#keysAndValues(t.qkv));
    for (const chunk of [0, 1]) {
      const [q, k, v] = columnsOf(this.#env, half(t.qkv, chunk));
      const [out, lse] = [half(t.out, chunk).columns(), half(t.lse, chunk)];
      const bounds = this.#boundsOf(t, chunk, this.#held[chunk] as number);
      ops.attention({ q, k, v, out, lse, bounds, ws }, this.#sizes.causal);
    }
    this.#attend(t, this.#ownBlock());
    for (const turn of this.#env.cp.turns()) {
      for (const block of this.#blocks(turn)) this.#attend(t, block);
    }
  }

  prepareBackward(t: CoreTensors): void {
    this.#exchange.startAgain(this.#keysAndValues(t.qkv));
  }

  backward(t: BackwardTensors, meanwhile: () => void): void {
    const { ops, cp, attentionWorkspace: ws } = this.#env;
    const exchange = this.#exchange;
    const add: AddToKeys = (chunk, gradient) => this.#addToKeys(t, chunk, gradient);
    this.#begin();
    for (const chunk of [0, 1]) {
      const [q, k, v] = columnsOf(this.#env, half(t.qkv, chunk));
      const [dq, dk, dv] = columnsOf(this.#env, half(t.dQkv, chunk));
      const bounds = this.#boundsOf(t, chunk, this.#held[chunk] as number);
      ops.attentionBwd({ ...this.#found(t, chunk), q, k, v, dq, dk, dv, bounds, ws }, this.#sizes.causal);
    }
    this.#attendBack(t, this.#ownBlock(), this.#keyPart);
    add(0, this.#keyPart);
    for (const turn of cp.turns()) {
      const gradient = exchange.gradient(turn);
      for (const [i, block] of this.#blocks(turn).entries()) this.#attendBack(t, block, gradient.rows(i, 1));
      // Both blocks were of the front chunk.
      if (turn.receives === 1) ops.add(gradient.rows(0, 1), gradient.rows(1, 1), gradient.rows(0, 1));
      exchange.giveBack(turn, add);
    }
    meanwhile();
    exchange.finish(add);
  }

  get #held(): readonly number[] {
    return this.#env.cp.chunksOf(this.#env.cp.rank);
  }

  #begin(): void {
    this.#fresh.queries.fill(true);
    this.#fresh.keys.fill(true);
  }

  /** What the back chunk sees of the front one. */
  #ownBlock(): Block {
    return { queries: 1, keys: this.#exchange.own.rows(0, 1), keyChunk: this.#held[0] as number };
  }

  #blocks(turn: KeyTurn): Block[] {
    const keys = this.#exchange.keys(turn);
    const chunks = this.#env.cp.chunksOf(turn.from);
    return turn.blocks.map(([queries, seen]) => {
      return { queries, keys: keys.rows(seen, 1), keyChunk: chunks[seen] as number };
    });
  }

  /** Attends one chunk's queries to one chunk's keys, and joins that to what they have found before. */
  #attend(t: CoreTensors, { queries, keys, keyChunk }: Block): void {
    const { ops, attentionWorkspace: ws, sizes } = this.#env;
    const [part, lsePart] = [this.#part, this.#lsePart];
    const q = half(t.qkv, queries).columns(0, sizes.qWidth);
    const [k, v] = this.#halves(keys);
    const bounds = this.#boundsOf(t, queries, keyChunk);
    ops.attention({ q, k, v, out: part.columns(), lse: lsePart, bounds, ws }, this.#sizes.full);
    const joined = { out: half(t.out, queries), lse: half(t.lse, queries), sum: half(this.#sum, queries) };
    attentionJoin(ops.device, { part, lsePart, ...joined }, this.#sizes.full, begins(this.#fresh.queries, queries));
  }

  /** The backward of {@link #attend}: adds to the gradient of the queries, and writes that of the keys and values. */
  #attendBack(t: BackwardTensors, { queries, keys, keyChunk }: Block, dKeys: Tensor): void {
    const { ops, attentionWorkspace: ws, sizes } = this.#env;
    const q = half(t.qkv, queries).columns(0, sizes.qWidth);
    const [[k, v], [dk, dv]] = [this.#halves(keys), this.#halves(dKeys)];
    const dq = this.#part.columns();
    const bounds = this.#boundsOf(t, queries, keyChunk);
    ops.attentionBwd({ ...this.#found(t, queries), q, k, v, dq, dk, dv, bounds, ws }, this.#sizes.full);
    const out = half(t.dQkv, queries).columns(0, sizes.qWidth);
    accumulate(ops.device, dq, half(this.#sum, queries), out, begins(this.#fresh.queries, queries));
  }

  #addToKeys({ dQkv }: BackwardTensors, chunk: number, gradient: Tensor): void {
    const out = this.#keysAndValues(half(dQkv, chunk));
    const sum = half(this.#keySum, chunk);
    accumulate(this.#env.ops.device, gradient.columns(), sum, out, begins(this.#fresh.keys, chunk));
  }

  /** Which keys of a chunk a chunk's queries may see, counted from the chunk's first. */
  #boundsOf({ bounds }: CoreTensors, queries: number, keyChunk: number): Tensor | null {
    if (bounds === null) return null;
    const { ops, cp, sizes } = this.#env;
    shift(ops.device, half(bounds, queries), this.#bounds, -keyChunk * cp.chunk(sizes.seq));
    return this.#bounds;
  }

  /** What the forward left of a chunk's queries, and the gradient of that. */
  #found(t: BackwardTensors, chunk: number): { out: Strided; lse: Tensor; dout: Strided } {
    return { out: half(t.out, chunk).columns(), lse: half(t.lse, chunk), dout: half(t.dOut, chunk).columns() };
  }

  #keysAndValues(qkv: Tensor): Strided {
    const { qWidth, kvWidth } = this.#env.sizes;
    return qkv.columns(qWidth, 2 * kvWidth);
  }

  #halves(keys: Tensor): [k: Strided, v: Strided] {
    const { kvWidth } = this.#env.sizes;
    return [keys.columns(0, kvWidth), keys.columns(kvWidth, kvWidth)];
  }
}

/** A chunk's part of a tensor of both. */
function half(both: Tensor, chunk: number): Tensor {
  const rows = (both.shape[0] ?? 0) / 2;
  return both.rows(chunk * rows, rows);
}

/** Whether it is still to begin; it has, afterwards. */
function begins(fresh: boolean[], chunk: number): boolean {
  const first = fresh[chunk] === true;
  fresh[chunk] = false;
  return first;
}

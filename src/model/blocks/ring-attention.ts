import type { AttentionSizes } from '../../engine/attention-sizes.js';
import { accumulate, attentionJoin } from '../../engine/ring-ops.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { Pending } from '../parallel/beside.js';
import type { RingTurn } from '../parallel/context-parallel.js';
import type { AttentionCore, CoreTensors } from './attention-core.js';
import type { StageEnv } from './stage-env.js';

/** For each of a rank's two chunks, whether nothing has been added to it yet. */
type Untouched = [front: boolean, back: boolean];

/**
 * The attention of a rank that holds two chunks of every sequence and sees one other rank's keys and values at a time: each
 * turn attends a chunk's queries to a chunk's keys, and joins the result to that of the turns before. The next rank's keys
 * come while this one's are attended to, and their gradients go back to it a turn later. What that takes of memory does not
 * depend on the number of ranks.
 */
export class RingAttention implements AttentionCore {
  readonly #env: StageEnv;
  /** A chunk's queries over its own keys, and over all keys of an earlier chunk. */
  readonly #sizes: { readonly causal: AttentionSizes; readonly full: AttentionSizes };
  /** Keys and values of the chunks that this rank holds, [2, batch * chunk, 2 * kvWidth]. */
  readonly #own: Tensor;
  /** As `#own`, of the rank whose turn it is and of the next; gradients for them, and theirs for this one. */
  readonly #received: readonly [Tensor, Tensor];
  readonly #given: readonly [Tensor, Tensor];
  readonly #returned: readonly [Tensor, Tensor];
  /** Of a chunk's queries over one chunk of keys: the output, or the gradient of the queries. */
  readonly #part: Tensor;
  readonly #lsePart: Tensor;
  /** f32: what the output, and the gradients of queries, keys and values, are rounded from. */
  readonly #sum: Tensor;
  readonly #keySum: Tensor;
  #first: Pending | null = null;

  constructor(env: StageEnv) {
    const { tokens, heads, qWidth, kvWidth } = env.sizes;
    const [chunk, width] = [tokens / 2, 2 * kvWidth];
    const pair = (key: string): readonly [Tensor, Tensor] => [
      env.scratch(`ring.${key}.0`, [2, chunk, width]),
      env.scratch(`ring.${key}.1`, [2, chunk, width]),
    ];
    const [causal, full] = env.attention as [AttentionSizes, AttentionSizes];
    this.#env = env;
    this.#sizes = { causal, full };
    this.#own = env.scratch('ring.own', [2, chunk, width]);
    this.#received = pair('received');
    this.#given = pair('given');
    this.#returned = pair('returned');
    this.#part = env.scratch('ring.part', [chunk, qWidth]);
    this.#lsePart = env.scratch('ring.lse', [chunk * heads], 'f32');
    this.#sum = env.scratch('ring.sum', [tokens, qWidth], 'f32');
    this.#keySum = env.scratch('ring.keySum', [tokens, width], 'f32');
  }

  forward(t: CoreTensors): void {
    const { ops, cp, attentionWorkspace: ws } = this.#env;
    this.#keep(t.qkv);
    let next = this.#fetch(1);
    for (const chunk of [0, 1]) {
      const [q, k, v] = this.#columns(half(t.qkv, chunk));
      ops.attention({ q, k, v, out: half(t.out, chunk).columns(), lse: half(t.lse, chunk), ws }, this.#sizes.causal);
    }
    const untouched: Untouched = [true, true];
    this.#join(t, 1, this.#own.rows(0, 1), untouched);
    for (const turn of cp.turns()) {
      const keys = next.wait();
      if (turn.number + 1 < cp.size) next = this.#fetch(turn.number + 1);
      for (const [queries, seen] of turn.blocks) this.#join(t, queries, keys.rows(seen, 1), untouched);
    }
  }

  prepareBackward(t: CoreTensors): void {
    this.#keep(t.qkv);
    this.#first = this.#fetch(1);
  }

  backward(t: CoreTensors & { dOut: Tensor; dQkv: Tensor }, meanwhile: () => void): void {
    const { ops, cp, attentionWorkspace: ws } = this.#env;
    let next = this.#first as Pending;
    this.#first = null;
    for (const chunk of [0, 1]) {
      const [q, k, v] = this.#columns(half(t.qkv, chunk));
      const [dq, dk, dv] = this.#columns(half(t.dQkv, chunk));
      const given = { ...this.#output(t, chunk), q, k, v, dq, dk, dv, ws };
      ops.attentionBwd(given, this.#sizes.causal);
    }
    const untouched = { queries: [true, true] as Untouched, keys: [true, true] as Untouched };
    const own = this.#given[0].rows(0, 1);
    this.#attendBack(t, 1, this.#own.rows(0, 1), own, untouched.queries);
    this.#addToKeys(t, own, 0, untouched.keys);
    let returning: { pending: Pending; turn: RingTurn } | null = null;
    for (const turn of cp.turns()) {
      const keys = next.wait();
      if (turn.number + 1 < cp.size) next = this.#fetch(turn.number + 1);
      const given = this.#given[turn.number % 2] as Tensor;
      for (const [i, [queries, seen]] of turn.blocks.entries()) {
        this.#attendBack(t, queries, keys.rows(seen, 1), given.rows(i, 1), untouched.queries);
      }
      // Both blocks were of the front chunk.
      if (turn.receives === 1) ops.add(given.rows(0, 1), given.rows(1, 1), given.rows(0, 1));
      const pending = this.#giveBack(turn);
      this.#collect(t, returning, untouched.keys);
      returning = { pending, turn };
    }
    meanwhile();
    this.#collect(t, returning, untouched.keys);
  }

  /** Packs this rank's keys and values, to be sent. */
  #keep(qkv: Tensor): void {
    const { tokens, qWidth, kvWidth } = this.#env.sizes;
    const packed = this.#own.view(tokens, 2 * kvWidth);
    this.#env.ops.copyRows(qkv.columns(qWidth, 2 * kvWidth), packed.columns());
  }

  /** Exchanges keys and values for a turn: to a rank as many chunks, from the front, as it sees. */
  #fetch(number: number): Pending {
    const { cp } = this.#env;
    const turn = cp.turn(number);
    const received = this.#received[number % 2] as Tensor;
    return cp.startExchange(received, [
      { kind: 'send', peer: turn.to, tensor: this.#own.rows(0, turn.sends) },
      { kind: 'receive', peer: turn.from, tensor: received.rows(0, turn.receives) },
    ]);
  }

  /** The gradients of the keys of a turn, to whom they came from. */
  #giveBack(turn: RingTurn): Pending {
    const at = turn.number % 2;
    const [given, returned] = [this.#given[at] as Tensor, this.#returned[at] as Tensor];
    return this.#env.cp.startExchange(returned, [
      { kind: 'send', peer: turn.from, tensor: given.rows(0, turn.receives) },
      { kind: 'receive', peer: turn.to, tensor: returned.rows(0, turn.sends) },
    ]);
  }

  /** Adds what another rank found for this one's keys. */
  #collect(t: { dQkv: Tensor }, returning: { pending: Pending; turn: RingTurn } | null, untouched: Untouched): void {
    if (returning === null) return;
    const found = returning.pending.wait();
    for (let chunk = 0; chunk < returning.turn.sends; chunk++) {
      this.#addToKeys(t, found.rows(chunk, 1), chunk, untouched);
    }
  }

  #addToKeys({ dQkv }: { dQkv: Tensor }, gradient: Tensor, chunk: number, untouched: Untouched): void {
    const { qWidth, kvWidth } = this.#env.sizes;
    const out = half(dQkv, chunk).columns(qWidth, 2 * kvWidth);
    accumulate(this.#env.ops.device, gradient.columns(), half(this.#keySum, chunk), out, untouched[chunk] as boolean);
    untouched[chunk] = false;
  }

  /** Attends one chunk's queries to all of one chunk's keys, and joins that to what they have seen before. */
  #join(t: CoreTensors, chunk: number, keys: Tensor, untouched: Untouched): void {
    const { ops, attentionWorkspace: ws, sizes } = this.#env;
    const { full } = this.#sizes;
    const q = half(t.qkv, chunk).columns(0, sizes.qWidth);
    const [k, v] = this.#halves(keys);
    const [part, lsePart] = [this.#part, this.#lsePart];
    ops.attention({ q, k, v, out: part.columns(), lse: lsePart, ws }, full);
    const joined = { out: half(t.out, chunk), lse: half(t.lse, chunk), sum: half(this.#sum, chunk) };
    attentionJoin(ops.device, { part, lsePart, ...joined }, full, untouched[chunk] as boolean);
    untouched[chunk] = false;
  }

  /** The backward of {@link #join}: adds to the gradient of the queries, and leaves that of keys and values. */
  #attendBack(
    t: CoreTensors & { dOut: Tensor; dQkv: Tensor },
    chunk: number,
    keys: Tensor,
    dKeys: Tensor,
    untouched: Untouched,
  ): void {
    const { ops, attentionWorkspace: ws, sizes } = this.#env;
    const { qWidth } = sizes;
    const q = half(t.qkv, chunk).columns(0, qWidth);
    const [[k, v], [dk, dv]] = [this.#halves(keys), this.#halves(dKeys)];
    const dq = this.#part.columns();
    ops.attentionBwd({ ...this.#output(t, chunk), q, k, v, dq, dk, dv, ws }, this.#sizes.full);
    const out = half(t.dQkv, chunk).columns(0, qWidth);
    accumulate(ops.device, dq, half(this.#sum, chunk), out, untouched[chunk] as boolean);
    untouched[chunk] = false;
  }

  #output(t: CoreTensors & { dOut: Tensor }, chunk: number): { out: Strided; lse: Tensor; dout: Strided } {
    return { out: half(t.out, chunk).columns(), lse: half(t.lse, chunk), dout: half(t.dOut, chunk).columns() };
  }

  #halves(keys: Tensor): [k: Strided, v: Strided] {
    const { kvWidth } = this.#env.sizes;
    return [keys.columns(0, kvWidth), keys.columns(kvWidth, kvWidth)];
  }

  #columns(qkv: Tensor): [q: Strided, k: Strided, v: Strided] {
    const { qWidth, kvWidth } = this.#env.sizes;
    return [qkv.columns(0, qWidth), qkv.columns(qWidth, kvWidth), qkv.columns(qWidth + kvWidth, kvWidth)];
  }
}

/** A chunk's part of a tensor of both. */
function half(both: Tensor, chunk: number): Tensor {
  const rows = (both.shape[0] ?? 0) / 2;
  return both.rows(chunk * rows, rows);
}

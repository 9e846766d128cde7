import type { AttentionSizes } from '../../engine/attention-sizes.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { Pending } from '../parallel/beside.js';
import type { AttentionCore, CoreTensors } from './attention-core.js';
import type { StageEnv } from './stage-env.js';

interface Copy {
  readonly from: Strided;
  readonly to: Strided;
}

/**
 * The attention of a rank that holds two chunks of every sequence: the keys and values of all ranks are gathered, and each
 * chunk's queries see those up to their own. They are not kept for backward, which gathers them again behind the gradient
 * of the output projection; its sums over the ranks go back behind that of the projection's weight.
 */
export class ContextAttention implements AttentionCore {
  readonly #env: StageEnv;
  /** Keys and values of every rank as they hold them, [cp, 2, batch, chunk, 2 * kvWidth]; in turn their gradients. */
  readonly #byRank: Tensor;
  /** The same in the order of the sequences, [batch, seq, 2 * kvWidth]. */
  readonly #ordered: Tensor;
  readonly #dOrdered: Tensor;
  readonly #toOrder: readonly Copy[];
  readonly #toRanks: readonly Copy[];
  #gathering: Pending | null = null;

  constructor(env: StageEnv) {
    const { batch, seq, tokens, kvWidth } = env.sizes;
    const width = 2 * kvWidth;
    this.#env = env;
    this.#byRank = env.scratch('kv.byRank', [env.cp.size, tokens * width]);
    this.#ordered = env.scratch('kv.ordered', [batch * seq, width]);
    this.#dOrdered = env.scratch('kv.dOrdered', [batch * seq, width]);
    this.#toOrder = this.#chunks(this.#ordered).map(([held, ordered]) => ({ from: held, to: ordered }));
    this.#toRanks = this.#chunks(this.#dOrdered).map(([held, ordered]) => ({ from: ordered, to: held }));
  }

  forward(t: CoreTensors): void {
    const { ops, attentionWorkspace: ws } = this.#env;
    this.#gather(t.qkv).wait();
    this.#copyAll(this.#toOrder);
    const [k, v] = this.#halves(this.#ordered);
    this.#eachChunk((part, sizes) => {
      const [q, out] = [this.#queries(part(t.qkv)), part(t.out).columns()];
      const bounds = t.bounds && part(t.bounds);
      ops.attention({ q, k, v, out, lse: part(t.lse), bounds, ws }, sizes);
    });
  }

  prepareBackward(t: CoreTensors): void {
    // A forward that was run again has just left them.
    if (this.#env.recompute !== 'full') this.#gathering = this.#gather(t.qkv);
  }

  backward(t: CoreTensors & { dOut: Tensor; dQkv: Tensor }, meanwhile: () => void): void {
    const { ops, cp, attentionWorkspace: ws, sizes } = this.#env;
    if (this.#gathering !== null) {
      this.#gathering.wait();
      this.#gathering = null;
      this.#copyAll(this.#toOrder);
    }
    const [k, v] = this.#halves(this.#ordered);
    // What was gathered is in order by now, so that its memory is free.
    const second = this.#byRank.view(...this.#dOrdered.shape);
    this.#eachChunk((part, call, i) => {
      const [q, dq] = [this.#queries(part(t.qkv)), this.#queries(part(t.dQkv))];
      const gradient = i === 0 ? this.#dOrdered : second;
      // The keys behind the chunk's last query have no part in it.
      if (call.keys !== sizes.seq) ops.fill(gradient, 0);
      const [dk, dv] = this.#halves(gradient);
      const [out, dout] = [part(t.out).columns(), part(t.dOut).columns()];
      const bounds = t.bounds && part(t.bounds);
      const given = { q, k, v, out, lse: part(t.lse), bounds, dout };
      ops.attentionBwd({ ...given, dq, dk, dv, ws }, call);
    });
    ops.add(this.#dOrdered, second, this.#dOrdered);
    this.#copyAll(this.#toRanks);
    const sum = cp.startReduceScatter(this.#byRank);
    meanwhile();
    const own = sum.wait().view(sizes.tokens, 2 * sizes.kvWidth);
    ops.copyRows(own.columns(), this.#keysAndValues(t.dQkv));
  }

  #gather(qkv: Tensor): Pending {
    const { ops, cp, sizes } = this.#env;
    const own = cp.own(this.#byRank).view(sizes.tokens, 2 * sizes.kvWidth);
    ops.copyRows(this.#keysAndValues(qkv), own.columns());
    return cp.startGather(this.#byRank);
  }

  #copyAll(copies: readonly Copy[]): void {
    for (const { from, to } of copies) this.#env.ops.copyRows(from, to);
  }

  /** Of each chunk that this rank holds: how to take its part of a tensor of all of them, and the call of its attention. */
  #eachChunk(act: (part: (all: Tensor) => Tensor, call: AttentionSizes, index: number) => void): void {
    const { attention } = this.#env;
    for (const [i, call] of attention.entries()) {
      const part = (all: Tensor): Tensor => {
        const rows = (all.shape[0] ?? 0) / attention.length;
        return all.rows(i * rows, rows);
      };
      act(part, call, i);
    }
  }

  /** Every rank's chunks, of all sequences each: as the rank holds them, and where they lie in `ordered`. */
  #chunks(ordered: Tensor): [held: Strided, ordered: Strided][] {
    const { cp, sizes } = this.#env;
    const { batch, seq, kvWidth } = sizes;
    const [sequence, width] = [seq, cp.chunk(seq)].map((tokens) => tokens * 2 * kvWidth) as [number, number];
    const count = batch * width;
    return Array.from({ length: cp.size }, (_, rank) =>
      cp.chunksOf(rank).map((number, i): [Strided, Strided] => {
        const held = this.#byRank.rows(rank, 1).slice(i * count, count, [batch, width]);
        return [held.columns(), ordered.view(batch, sequence).columns(number * width, width)];
      }),
    ).flat();
  }

  #halves(keysAndValues: Tensor): [k: Strided, v: Strided] {
    const { kvWidth } = this.#env.sizes;
    return [keysAndValues.columns(0, kvWidth), keysAndValues.columns(kvWidth, kvWidth)];
  }

  #queries(qkv: Tensor): Strided {
    return qkv.columns(0, this.#env.sizes.qWidth);
  }

  #keysAndValues(qkv: Tensor): Strided {
    const { qWidth, kvWidth } = this.#env.sizes;
    return qkv.columns(qWidth, 2 * kvWidth);
  }
}

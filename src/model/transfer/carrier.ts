import { DTYPES, type DType } from '../../engine/dtype.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import { Ops } from '../../engine/ops.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { CommGroup, Part } from '../../groups/comm/comm-group.js';
import { areaOf, type HeldPiece } from '../parameters/rectangle.js';
import { viewsOf, type AddedProduct } from './held-weights.js';
import { roundsOf, type Move } from './transfer-plan.js';

export interface CarrierOptions {
  readonly group: CommGroup;
  /** The same on all of its ranks. */
  readonly moves: readonly Move[];
  readonly dtype: DType;
  readonly from: readonly HeldPiece[];
  readonly to: readonly HeldPiece[];
  /** Memory in each direction; a row of a matrix always fits. */
  readonly stagingBytes: number;
  /** What this rank's adapters add to what it brings; null for nothing. */
  readonly added: (move: Move) => AddedProduct | null;
}

interface Copy {
  readonly from: Strided;
  readonly to: Strided;
  readonly added: AddedProduct | null;
}

/** What a rank does in a round: packs, exchanges, unpacks. */
interface Round {
  readonly pack: readonly Copy[];
  readonly send: readonly Part[];
  readonly receive: readonly Part[];
  readonly unpack: readonly Copy[];
}

/** Carries out moves of elements of one type, over the group's all-to-all. */
export class Carrier {
  /** Bytes that this rank sends and receives in a run, and takes from itself. */
  readonly bytes: { readonly sent: number; readonly received: number; readonly local: number };
  readonly #group: CommGroup;
  readonly #ops: Ops;
  readonly #out: Tensor;
  readonly #into: Tensor;
  readonly #local: readonly Copy[];
  readonly #rounds: readonly Round[];

  /** @param plan which the staging memory is of */
  constructor(plan: MemoryPlan, { group, moves, dtype, stagingBytes, added, ...held }: CarrierOptions) {
    const { rank } = group;
    this.#group = group;
    this.#ops = new Ops(group.device);
    const local = moves.filter(({ from, to }) => from === to && from === rank);
    const between = moves.filter(({ from, to }) => from !== to);
    const rounds = roundsOf(between, Math.floor(stagingBytes / DTYPES[dtype].bytes));
    const elements = (of: readonly Move[], side: 'from' | 'to'): number =>
      of.reduce((sum, move) => sum + (move[side] === rank ? areaOf(move) : 0), 0);
    const room = (side: 'from' | 'to'): number => Math.max(1, ...rounds.map((round) => elements(round, side)));
    this.#out = plan.tensor('communication', [room('from')], dtype);
    this.#into = plan.tensor('communication', [room('to')], dtype);
    const [from, to] = [viewsOf(held.from), viewsOf(held.to)];
    this.#local = local.map((move) => ({ from: from(move), to: to(move), added: added(move) }));
    this.#rounds = rounds.map((round) => {
      const [sent, received] = [peersOf(round, group, 'from', 'to'), peersOf(round, group, 'to', 'from')];
      return {
        pack: sent.placed.map(({ move, offset }) => {
          return { from: from(move), to: staged(this.#out, move, offset), added: added(move) };
        }),
        send: sent.parts,
        receive: received.parts,
        unpack: received.placed.map(({ move, offset }) => {
          return { from: staged(this.#into, move, offset), to: to(move), added: null };
        }),
      };
    });
    const bytes = (of: readonly Move[], side: 'from' | 'to'): number => DTYPES[dtype].bytes * elements(of, side);
    this.bytes = { sent: bytes(between, 'from'), received: bytes(between, 'to'), local: bytes(local, 'to') };
  }

  /** Every rank of the group calls it, in the order of the device's work. */
  run(): void {
    this.#copyAll(this.#local);
    for (const { pack, send, receive, unpack } of this.#rounds) {
      this.#copyAll(pack);
      this.#group.allToAll(this.#out, this.#into, { send, receive });
      this.#copyAll(unpack);
    }
  }

  #copyAll(copies: readonly Copy[]): void {
    for (const { from, to, added } of copies) {
      this.#ops.copyRows(from, to);
      if (added !== null) this.#ops.gemm(added.left, added.right, to, { alpha: added.scale, beta: 1 });
    }
  }
}

/** A rank's moves of a round, ordered by the rank at the other side, and where each lies in the buffer. */
function peersOf(
  round: readonly Move[],
  { rank: self, size }: CommGroup,
  own: 'from' | 'to',
  other: 'from' | 'to',
): { placed: { move: Move; offset: number }[]; parts: Part[] } {
  const mine = round.filter((move) => move[own] === self);
  const placed: { move: Move; offset: number }[] = [];
  let offset = 0;
  const parts = Array.from({ length: size }, (_, rank) => {
    const start = offset;
    for (const move of mine) {
      if (move[other] !== rank) continue;
      placed.push({ move, offset });
      offset += areaOf(move);
    }
    return { offset: start, count: offset - start };
  });
  return { placed, parts };
}

function staged(buffer: Tensor, move: Move, offset: number): Strided {
  return buffer.slice(offset, areaOf(move), [move.rows.count, move.cols.count]).columns();
}

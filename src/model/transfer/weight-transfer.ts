import { MbridgeError } from '../../base/errors.js';
import type { DType } from '../../engine/dtype.js';
import { DTYPES } from '../../engine/dtype.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import { Ops } from '../../engine/ops.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { Store } from '../../job/rendezvous/store.js';
import type { DistributedModel } from '../stage/distributed-model.js';
import { planTransfer, roundsOf, type Move, type Piece, type Placement } from './transfer-plan.js';

export interface WeightTransferOptions {
  /** All ranks of both models. */
  readonly group: CommGroup;
  /** The job's, in which ranks tell each other what they hold. */
  readonly store: Pick<Store, 'set' | 'get'>;
  /** Of its own among the transfers of a job. */
  readonly name: string;
  /** Null on ranks that have no part of it. */
  readonly source: DistributedModel | null;
  /** A frozen model of the same shape and type; null on ranks that have no part of it. */
  readonly target: DistributedModel | null;
  /** Memory for what is on its way, in each direction; 256 MiB by default. One whole rectangle always fits. */
  readonly stagingBytes?: number;
}

/** For a rank that is still building its models. */
const WAIT_MS = 600_000;

interface Held {
  readonly piece: Piece;
  readonly tensor: Tensor;
}

/**
 * Brings a model's weights into another one that is spread otherwise, in memory: a policy's to the model that samples.
 * Every rank has the same plan; each element goes to each rank that needs it once, over the group's all-to-all.
 */
export class WeightTransfer {
  readonly #o: WeightTransferOptions;
  readonly #ops: Ops;
  readonly #local: readonly Move[];
  readonly #rounds: readonly (readonly Move[])[];
  readonly #plan = new MemoryPlan();
  readonly #out: Tensor;
  readonly #into: Tensor;
  readonly #held: { readonly source: ReadonlyMap<string, Held>; readonly target: ReadonlyMap<string, Held> };

  /**
   * Every rank of the group calls it.
   * @throws MbridgeError MB_TRANSFER, exit 3, for models that are not of one shape and type, and for a target that is trained
   */
  static async create(options: WeightTransferOptions): Promise<WeightTransfer> {
    const { group, store, name, source, target } = options;
    if (target?.stage.optimizer != null) {
      throw refused('the target is trained', 'an update would undo it: give a model with trainable: false');
    }
    const [held, wanted] = [source, target].map((model) => (model === null ? [] : piecesOf(model)));
    const dtype = (source ?? target)?.stage.spec.dtype ?? null;
    const note = { dtype, held: held?.map(({ piece }) => piece), wanted: wanted?.map(({ piece }) => piece) };
    await store.set(`transfer/${name}/${group.rank}`, Buffer.from(JSON.stringify(note)));
    const notes = await Promise.all(
      Array.from({ length: group.size }, async (_, rank) => {
        const text = await store.get(`transfer/${name}/${rank}`, WAIT_MS);
        return JSON.parse(Buffer.from(text).toString()) as { dtype: DType | null; held: Piece[]; wanted: Piece[] };
      }),
    );
    const types = new Set(notes.flatMap((each) => (each.dtype === null ? [] : [each.dtype])));
    if (types.size > 1) throw refused(`weights of ${[...types].join(' and ')}`, 'build both with one mixed_precision');
    const placement = (of: 'held' | 'wanted'): Placement => new Map(notes.map((each, rank) => [rank, each[of]]));
    let moves: Move[];
    try {
      moves = planTransfer(placement('held'), placement('wanted'));
    } catch (cause) {
      throw refused((cause as Error).message, 'both models are of one shape, and all of the source is in the group');
    }
    return new WeightTransfer(options, moves, [...types][0] ?? 'f32');
  }

  private constructor(options: WeightTransferOptions, moves: readonly Move[], dtype: DType) {
    const { group, stagingBytes = 256 << 20 } = options;
    this.#o = options;
    this.#ops = new Ops(group.device);
    this.#local = moves.filter(({ from, to }) => from === to && from === group.rank);
    const most = Math.floor(stagingBytes / DTYPES[dtype].bytes);
    this.#rounds = roundsOf(
      moves.filter(({ from, to }) => from !== to),
      most,
    );
    const room = (side: 'from' | 'to'): number =>
      Math.max(1, ...this.#rounds.map((round) => elementsOf(round.filter((move) => move[side] === group.rank))));
    this.#out = this.#plan.tensor('communication', [room('from')], dtype);
    this.#into = this.#plan.tensor('communication', [room('to')], dtype);
    this.#plan.commit(group.device);
    const byName = (model: DistributedModel | null): Map<string, Held> =>
      new Map((model === null ? [] : piecesOf(model)).map((held) => [held.piece.name, held]));
    this.#held = { source: byName(options.source), target: byName(options.target) };
  }

  /** Bytes that this rank sends and receives in a run, and takes from itself. */
  get bytes(): { readonly sent: number; readonly received: number; readonly local: number } {
    const { rank } = this.#o.group;
    const size = DTYPES[this.#out.dtype].bytes;
    const all = this.#rounds.flat();
    return {
      sent: size * elementsOf(all.filter(({ from }) => from === rank)),
      received: size * elementsOf(all.filter(({ to }) => to === rank)),
      local: size * elementsOf(this.#local),
    };
  }

  /** Every rank of the group calls it; the device has done it when what is enqueued next begins. */
  run(): void {
    const { group, source } = this.#o;
    const ops = this.#ops;
    source?.settleParameters();
    for (const move of this.#local) ops.copyRows(this.#view('source', move), this.#view('target', move));
    for (const round of this.#rounds) {
      const [send, receive] = [this.#peers(round, 'from', 'to'), this.#peers(round, 'to', 'from')];
      for (const { move, offset } of send.flatMap(({ moves }) => moves)) {
        ops.copyRows(this.#view('source', move), staged(this.#out, move, offset));
      }
      const parts = { send: send.map(({ part }) => part), receive: receive.map(({ part }) => part) };
      group.allToAll(this.#out, this.#into, parts);
      for (const { move, offset } of receive.flatMap(({ moves }) => moves)) {
        ops.copyRows(staged(this.#into, move, offset), this.#view('target', move));
      }
    }
  }

  /** What this rank does of a round, by the rank at the other side, in the order in which it lies in the buffer. */
  #peers(round: readonly Move[], own: 'from' | 'to', other: 'from' | 'to'): Peer[] {
    const { rank: self, size } = this.#o.group;
    let offset = 0;
    return Array.from({ length: size }, (_, rank) => {
      const start = offset;
      const moves = round
        .filter((move) => move[own] === self && move[other] === rank)
        .map((move) => {
          const placed = { move, offset };
          offset += move.rows.count * move.cols.count;
          return placed;
        });
      return { moves, part: { offset: start, count: offset - start } };
    });
  }

  dispose(): void {
    this.#o.group.device.synchronize();
    this.#plan.release();
  }

  #view(of: 'source' | 'target', { name, rows, cols }: Move): Strided {
    const { piece, tensor } = this.#held[of].get(name) as Held;
    return tensor.rows(rows.start - piece.rows.start, rows.count).columns(cols.start - piece.cols.start, cols.count);
  }
}

interface Peer {
  readonly moves: readonly { readonly move: Move; readonly offset: number }[];
  readonly part: { readonly offset: number; readonly count: number };
}

function staged(buffer: Tensor, { rows, cols }: Move, offset: number): Strided {
  return buffer.slice(offset, rows.count * cols.count, [rows.count, cols.count]).columns();
}

function elementsOf(moves: readonly Move[]): number {
  return moves.reduce((sum, { rows, cols }) => sum + rows.count * cols.count, 0);
}

/** What a rank holds, each name once. */
function piecesOf({ stage }: DistributedModel): Held[] {
  const held = stage.buffer.buckets.flatMap((bucket) =>
    bucket.entries.map(({ spec: { name, rows, cols }, offset }): [string, Held] => {
      const tensor = bucket.params.slice(offset, rows.count * cols.count, [rows.count, cols.count]);
      return [name, { piece: { name, rows, cols }, tensor }];
    }),
  );
  return [...new Map(held).values()];
}

function refused(found: string, hint: string): MbridgeError {
  return new MbridgeError('config', 'MB_TRANSFER', found, { hint });
}

import { MbridgeError } from '../../base/errors.js';
import { DTYPES, type DType } from '../../engine/dtype.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import { Ops } from '../../engine/ops.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { CommGroup, Part } from '../../groups/comm/comm-group.js';
import type { Store } from '../../job/rendezvous/store.js';
import type { DistributedModel } from '../stage/distributed-model.js';
import { areaOf, type HeldPiece, type Piece } from '../parameters/rectangle.js';
import { planTransfer, roundsOf, type Move, type Placement } from './transfer-plan.js';

/** What takes weights and is no model, as a FullDistillationLoss does. */
export interface WeightTarget {
  readonly held: readonly HeldPiece[];
  /** Null where nothing is held. */
  readonly dtype: DType | null;
  /** Called when what is enqueued next finds the weights there. */
  filled(): void;
}

export interface WeightTransferOptions {
  /** All ranks of both models. */
  readonly group: CommGroup;
  /** The job's, in which ranks tell each other what they hold. */
  readonly store: Pick<Store, 'set' | 'get'>;
  /** Of its own among the transfers of a job. */
  readonly name: string;
  /** Null on ranks that have no part of it. */
  readonly source: DistributedModel | null;
  /** A frozen model of the same shape and type, or what takes a part of it; null on ranks that have no part of it. */
  readonly target: DistributedModel | WeightTarget | null;
  /** Memory for what is on its way, in each direction; 256 MiB by default; a row of a matrix always fits. */
  readonly stagingBytes?: number;
}

/** For a rank that is still building its models. */
const WAIT_MS = 600_000;

interface Copy {
  readonly from: Strided;
  readonly to: Strided;
}

/** What a rank does in a round: packs, exchanges, unpacks. */
interface Round {
  readonly pack: readonly Copy[];
  readonly send: readonly Part[];
  readonly receive: readonly Part[];
  readonly unpack: readonly Copy[];
}

/**
 * Brings a model's weights into another one that is spread otherwise, in memory: a policy's to the model that samples.
 * Every rank has the same plan; each element goes to each rank that needs it once, over the group's all-to-all.
 */
export class WeightTransfer {
  /** Bytes that this rank sends and receives in a run, and takes from itself. */
  readonly bytes: { readonly sent: number; readonly received: number; readonly local: number };
  readonly #group: CommGroup;
  readonly #source: DistributedModel | null;
  readonly #target: WeightTransferOptions['target'];
  readonly #ops: Ops;
  readonly #plan = new MemoryPlan();
  readonly #out: Tensor;
  readonly #into: Tensor;
  readonly #local: readonly Copy[];
  readonly #rounds: readonly Round[];

  /**
   * Every rank of the group calls it.
   * @throws MbridgeError MB_TRANSFER, exit 3, for models that are not of one shape and type, and for a target that is trained
   */
  static async create(options: WeightTransferOptions): Promise<WeightTransfer> {
    const { group, store, name, source, target } = options;
    const [held, wanted] = [piecesOf(source), piecesOf(target)];
    const dtypes = [source, target].flatMap((of) => dtypeOf(of) ?? []);
    const trained = isModel(target) && target.stage.optimizer !== null;
    const note = { dtypes, trained, held: held.map(({ piece }) => piece), wanted: wanted.map(({ piece }) => piece) };
    await store.set(`transfer/${name}/${group.rank}`, Buffer.from(JSON.stringify(note)));
    const notes = await Promise.all(
      Array.from({ length: group.size }, async (_, rank) => {
        const text = await store.get(`transfer/${name}/${rank}`, WAIT_MS);
        return JSON.parse(Buffer.from(text).toString()) as {
          dtypes: DType[];
          trained: boolean;
          held: Piece[];
          wanted: Piece[];
        };
      }),
    );
    // Said by all ranks, so that none waits for another.
    if (notes.some((each) => each.trained)) {
      throw refused('the target is trained', 'an update would undo it: give a model with trainable: false');
    }
    const types = new Set(notes.flatMap((each) => each.dtypes));
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

  private constructor(
    { group, source, target, stagingBytes = 256 << 20 }: WeightTransferOptions,
    moves: readonly Move[],
    dtype: DType,
  ) {
    const { rank } = group;
    this.#group = group;
    this.#source = source;
    this.#target = target;
    this.#ops = new Ops(group.device);
    const local = moves.filter(({ from, to }) => from === to && from === rank);
    const between = moves.filter(({ from, to }) => from !== to);
    const rounds = roundsOf(between, Math.floor(stagingBytes / DTYPES[dtype].bytes));
    const elements = (of: readonly Move[], side: 'from' | 'to'): number =>
      of.reduce((sum, move) => sum + (move[side] === rank ? areaOf(move) : 0), 0);
    const room = (side: 'from' | 'to'): number => Math.max(1, ...rounds.map((round) => elements(round, side)));
    this.#out = this.#plan.tensor('communication', [room('from')], dtype);
    this.#into = this.#plan.tensor('communication', [room('to')], dtype);
    this.#plan.commit(group.device);
    const [from, to] = [viewsOf(source), viewsOf(target)];
    this.#local = local.map((move) => ({ from: from(move), to: to(move) }));
    this.#rounds = rounds.map((round) => {
      const [sent, received] = [peersOf(round, group, 'from', 'to'), peersOf(round, group, 'to', 'from')];
      return {
        pack: sent.placed.map(({ move, offset }) => ({ from: from(move), to: staged(this.#out, move, offset) })),
        send: sent.parts,
        receive: received.parts,
        unpack: received.placed.map(({ move, offset }) => ({ from: staged(this.#into, move, offset), to: to(move) })),
      };
    });
    const bytes = (of: readonly Move[], side: 'from' | 'to'): number => DTYPES[dtype].bytes * elements(of, side);
    this.bytes = { sent: bytes(between, 'from'), received: bytes(between, 'to'), local: bytes(local, 'to') };
  }

  /**
   * Every rank of the group calls it; the device has done it when what is enqueued next begins.
   * @throws MbridgeError MB_PARKED, where the source or the target is parked
   */
  run(): void {
    for (const end of [this.#source, this.#target]) if (isModel(end)) end.stage.plan.refuseIfParked();
    this.#source?.settleParameters();
    this.#copyAll(this.#local);
    for (const { pack, send, receive, unpack } of this.#rounds) {
      this.#copyAll(pack);
      this.#group.allToAll(this.#out, this.#into, { send, receive });
      this.#copyAll(unpack);
    }
    if (this.#target !== null && !isModel(this.#target)) this.#target.filled();
  }

  #copyAll(copies: readonly Copy[]): void {
    for (const { from, to } of copies) this.#ops.copyRows(from, to);
  }

  dispose(): void {
    this.#group.device.synchronize();
    this.#plan.release();
  }
}

type View = (move: Move) => Strided;

type End = WeightTransferOptions['target'];

function isModel(end: End): end is DistributedModel {
  return end !== null && 'stage' in end;
}

function dtypeOf(end: End): DType | null {
  return isModel(end) ? end.stage.spec.dtype : (end?.dtype ?? null);
}

/** Where rectangles lie in this rank's part. */
function viewsOf(end: End): View {
  const held = new Map(piecesOf(end).map((each) => [each.piece.name, each]));
  return ({ name, rows, cols }) => {
    const { piece, tensor } = held.get(name) as HeldPiece;
    return tensor.rows(rows.start - piece.rows.start, rows.count).columns(cols.start - piece.cols.start, cols.count);
  };
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

/** What a rank holds, each name once. */
function piecesOf(end: End): readonly HeldPiece[] {
  if (!isModel(end)) return end?.held ?? [];
  const held = end.stage.buffer.buckets.flatMap((bucket) =>
    bucket.entries.map(({ spec: { name, rows, cols }, offset }): [string, HeldPiece] => {
      const tensor = bucket.params.slice(offset, rows.count * cols.count, [rows.count, cols.count]);
      return [name, { piece: { name, rows, cols }, tensor }];
    }),
  );
  return [...new Map(held).values()];
}

function refused(found: string, hint: string): MbridgeError {
  return new MbridgeError('config', 'MB_TRANSFER', found, { hint });
}

import { MbridgeError } from '../../base/errors.js';
import type { DType } from '../../engine/dtype.js';
import { isAdapterParameter } from '../../families/adapters.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { Store } from '../../job/rendezvous/store.js';
import type { DistributedModel } from '../stage/distributed-model.js';
import { Carrier } from './carrier.js';
import type { HeldPiece, Piece } from '../parameters/rectangle.js';
import { addedByAdapters, mainParametersOf, weightsOf, type AddedProduct } from './held-weights.js';
import { planTransfer, type Move, type Placement } from './transfer-plan.js';

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
  /** A model of the same shape and type, frozen or trained, or what takes a part of it; null on ranks that have no part of it. */
  readonly target: DistributedModel | WeightTarget | null;
  /** Memory for what is on its way, in each direction; 256 MiB by default; a row of a matrix always fits. */
  readonly stagingBytes?: number;
}

/** For a rank that is still building its models. */
const WAIT_MS = 600_000;

/** Float32 main parameters go where both models have them, else what the models compute with. */
const FORMS = ['weights', 'main'] as const;
type Form = (typeof FORMS)[number];

/** Of source and target. */
interface Ends<T> {
  readonly source: readonly T[];
  readonly target: readonly T[];
}

/** What a rank tells the others: what it holds. */
interface Note extends Readonly<Record<Form, Ends<Piece>>> {
  readonly dtypes: readonly DType[];
}

type End = WeightTransferOptions['target'];

/**
 * Brings a model's weights into another one that is spread otherwise, in memory: a policy's to the model that samples.
 * Every rank has the same plan; each element goes to each rank that needs it once, over the group's all-to-all.
 *
 * A target that is trained goes on from the weights as one that was loaded with them does: where both are bf16 and
 * trained, its float32 main parameters become the source's, else they become the weights that were brought. Its moments
 * and counters stay its own (`optimizer.initialize()` clears them).
 *
 * Of a source with adapters, a target without has the weights that they make together: what each rank brings has the product of
 * its part of them added, in float32, on its way. A target with the same adapters has them as they are.
 */
export class WeightTransfer {
  /** Bytes that this rank sends and receives in a run, and takes from itself. */
  readonly bytes: { readonly sent: number; readonly received: number; readonly local: number };
  readonly #source: DistributedModel | null;
  readonly #target: End;
  readonly #group: CommGroup;
  readonly #plan = new MemoryPlan();
  readonly #carriers: readonly Carrier[];
  /** Parameters that go as float32 main ones. */
  readonly #exact: ReadonlySet<string>;

  /**
   * Every rank of the group calls it.
   * @throws MbridgeError MB_TRANSFER, exit 3, for models that are not of one shape and type
   */
  static async create(options: WeightTransferOptions): Promise<WeightTransfer> {
    const { group, store, name, source, target } = options;
    const held = heldBy(source, target);
    const note: Note = {
      dtypes: [source, target].flatMap((end) => dtypeOf(end) ?? []),
      weights: piecesOf(held.weights),
      main: piecesOf(held.main),
    };
    await store.set(`transfer/${name}/${group.rank}`, Buffer.from(JSON.stringify(note)));
    const notes = await Promise.all(
      Array.from({ length: group.size }, async (_, rank) => {
        const text = await store.get(`transfer/${name}/${rank}`, WAIT_MS);
        return JSON.parse(Buffer.from(text).toString()) as Note;
      }),
    );
    // What is wrong is said by all ranks, so that none waits for another.
    const types = new Set(notes.flatMap(({ dtypes }) => dtypes));
    if (types.size > 1) throw refused(`weights of ${[...types].join(' and ')}`, 'build both with one mixed_precision');
    const exact = namesOnBothSides(notes);
    let moves: Record<Form, Move[]>;
    try {
      moves = { weights: movesOf('weights', notes, exact), main: movesOf('main', notes, exact) };
    } catch (cause) {
      throw refused((cause as Error).message, 'both models are of one shape, and all of the source is in the group');
    }
    const keeps = notes.some(({ weights }) => weights.target.some((piece) => isAdapterParameter(piece.name)));
    const added = isModel(source) && !keeps ? addedByAdapters(source.stage) : () => null;
    return new WeightTransfer(options, { held, moves, exact, added, dtype: [...types][0] ?? 'f32' });
  }

  private constructor(
    { group, source, target, stagingBytes = 256 << 20 }: WeightTransferOptions,
    plan: {
      readonly held: Readonly<Record<Form, Ends<HeldPiece>>>;
      readonly moves: Readonly<Record<Form, readonly Move[]>>;
      readonly exact: ReadonlySet<string>;
      readonly added: (move: Move) => AddedProduct | null;
      readonly dtype: DType;
    },
  ) {
    this.#source = source;
    this.#target = target;
    this.#group = group;
    this.#exact = plan.exact;
    const forms = FORMS.filter((form) => plan.moves[form].length > 0);
    this.#carriers = forms.map((form) => {
      const { source: from, target: to } = plan.held[form];
      const dtype = form === 'main' ? 'f32' : plan.dtype;
      const each = stagingBytes / forms.length;
      const { moves, added } = plan;
      return new Carrier(this.#plan, { group, moves: moves[form], dtype, from, to, stagingBytes: each, added });
    });
    this.#plan.commit(group.device);
    const sum = (of: keyof Carrier['bytes']): number => this.#carriers.reduce((all, { bytes }) => all + bytes[of], 0);
    this.bytes = { sent: sum('sent'), received: sum('received'), local: sum('local') };
  }

  /**
   * Every rank of the group calls it; the device has done it when what is enqueued next begins.
   * @throws MbridgeError MB_PARKED, where the source or the target is parked
   */
  run(): void {
    const { device } = this.#group;
    const [source, target] = [this.#source, this.#target];
    for (const end of [source, target]) if (isModel(end)) end.stage.plan.refuseIfParked();
    for (const end of [source, target]) if (isModel(end)) end.settleParameters();
    const trained = isModel(target) ? target.stage.optimizer : null;
    for (const { bucket } of trained?.buckets ?? []) bucket.readers.wait(device);
    for (const carrier of this.#carriers) carrier.run();
    if (target !== null && !isModel(target)) target.filled();
    if (isModel(target) && trained !== null) this.#adopt(target, trained);
  }

  /** Makes main parameters and weights of the target one again. */
  #adopt({ stage }: DistributedModel, trained: NonNullable<DistributedModel['stage']['optimizer']>): void {
    const { ops } = stage.env;
    for (const state of trained.buckets) {
      if (state.bucket.entries.some(({ spec }) => this.#exact.has(spec.name))) trained.publish(ops, state);
      else trained.follow(ops, state);
    }
  }

  dispose(): void {
    this.#group.device.synchronize();
    this.#plan.release();
  }
}

function isModel(end: End): end is DistributedModel {
  return end !== null && 'stage' in end;
}

function dtypeOf(end: End): DType | null {
  return isModel(end) ? end.stage.spec.dtype : (end?.dtype ?? null);
}

function heldBy(source: End, target: End): Record<Form, Ends<HeldPiece>> {
  const weights = (end: End): readonly HeldPiece[] => (isModel(end) ? weightsOf(end.stage) : (end?.held ?? []));
  const main = (end: End): readonly HeldPiece[] => (isModel(end) ? mainParametersOf(end.stage) : []);
  const ends = (of: typeof main): Ends<HeldPiece> => ({ source: of(source), target: of(target) });
  return { weights: ends(weights), main: ends(main) };
}

function piecesOf({ source, target }: Ends<HeldPiece>): Ends<Piece> {
  return { source: source.map(({ piece }) => piece), target: target.map(({ piece }) => piece) };
}

/** Parameters that have main ones in source and target. */
function namesOnBothSides(notes: readonly Note[]): Set<string> {
  const names = (end: 'source' | 'target'): Set<string> =>
    new Set(notes.flatMap(({ main }) => main[end].map(({ name }) => name)));
  const wanted = names('target');
  return new Set([...names('source')].filter((name) => wanted.has(name)));
}

function movesOf(form: Form, notes: readonly Note[], exact: ReadonlySet<string>): Move[] {
  const placement = (end: 'source' | 'target'): Placement =>
    new Map(
      notes.map((note, rank) => [rank, note[form][end].filter(({ name }) => exact.has(name) === (form === 'main'))]),
    );
  return planTransfer(placement('source'), placement('target'));
}

function refused(found: string, hint: string): MbridgeError {
  return new MbridgeError('config', 'MB_TRANSFER', found, { hint });
}

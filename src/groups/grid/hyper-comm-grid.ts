import type { MbridgeError } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import {
  checkedFactorisation,
  dimIndices,
  enumerate,
  gridError,
  refuseRepeated,
  sameLists,
  sizeOf,
  type Factorisation,
} from './dimensions.js';
import { GroupTable } from './group-table.js';
import { NON_MEMBER, type GroupRuntime, type NonMember, type ProcessGroup } from './process-group.js';

export interface HyperCommGridOptions {
  /** Size of each dimension; the first varies fastest. */
  readonly shape: readonly number[];
  readonly dimNames: readonly string[];
  /** The grid covers the ranks [rankOffset, rankOffset + size) of the world; 0 by default. */
  readonly rankOffset?: number;
  /** Or any ranks of the world, each once, in the order of the grid: `[3, 1]` as tp 2 has rank 3 as its first. */
  readonly ranks?: readonly number[];
  readonly worldSize: number;
  /** Which communicators it is meant for, such as 'nccl' or 'shm'. */
  readonly backend: string;
  /** Tells grids over the same ranks apart (policy, value, ...): the prefix of its groups' names. */
  readonly name?: string | undefined;
}

export interface ViewOptions {
  readonly shape: readonly number[];
  readonly dimNames: readonly string[];
  /** Dimensions that mean the same in the grid and in the view, and enumerate alike. */
  readonly sharedDims?: readonly string[];
}

/** Where to look dimensions up; the base dimensions when left out. */
export interface InView {
  readonly view?: string;
}

interface View extends Factorisation {
  readonly sharedDims: readonly string[];
}

const BASE = 'base';

/**
 * Ranks arranged in named dimensions, and the process groups made from them. For `[tp, cp, dp, pp]`:
 * rank = ranks[tp + TP * (cp + CP * (dp + DP * pp))].
 * A view is a second arrangement of the same ranks (experts). The grid holds no native code: communicators come from the
 * {@link GroupRuntime} that `createPg` is given. All errors are config errors MB_GRID_*.
 */
export class HyperCommGrid {
  readonly shape: readonly number[];
  readonly dimNames: readonly string[];
  /** Global ranks, in the order of the grid. */
  readonly ranks: readonly number[];
  readonly worldSize: number;
  readonly backend: string;
  readonly name: string | undefined;
  /** Number of ranks. */
  readonly size: number;
  /** Of each rank in `ranks`. */
  readonly #places: ReadonlyMap<number, number>;
  readonly #views = new Map<string, View>();
  readonly #table = new GroupTable();
  #runtime: GroupRuntime | undefined;

  /** @throws MbridgeError MB_GRID_LENGTHS, _EMPTY, _REPEATED_DIM, _SIZE, _WORLD, _OFFSET, _OVERSIZED, _RANKS */
  constructor(options: HyperCommGridOptions) {
    const { worldSize } = options;
    const base = checkedFactorisation(options.shape, options.dimNames, 'the grid');
    if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
      throw gridError('WORLD', `the world size must be a positive integer, got ${worldSize}`);
    }
    this.shape = base.shape;
    this.dimNames = base.dimNames;
    this.ranks = ranksOf(options, base);
    this.worldSize = worldSize;
    this.backend = options.backend;
    this.name = options.name;
    this.size = sizeOf(base);
    this.#places = new Map(this.ranks.map((rank, place) => [rank, place]));
    this.#views.set(BASE, { ...base, sharedDims: [] });
  }

  /**
   * Registers a second arrangement of the same ranks. Its shared dimensions must enumerate as they do in the grid;
   * a group of shared dimensions only is the grid's own, any other group is the view's.
   * @throws MbridgeError MB_GRID_VIEW_EXISTS, _LENGTHS, _EMPTY, _REPEATED_DIM, _SIZE, _VIEW_SIZE, _UNKNOWN_DIM, _VIEW_SHARED
   */
  registerView(name: string, options: ViewOptions): void {
    if (this.#views.has(name)) throw gridError('VIEW_EXISTS', `view '${name}' is already registered`);
    const what = `view '${name}'`;
    const view: View = {
      ...checkedFactorisation(options.shape, options.dimNames, what),
      sharedDims: [...(options.sharedDims ?? [])],
    };
    if (sizeOf(view) !== this.size) {
      throw gridError(
        'VIEW_SIZE',
        `${what} of shape [${view.shape.join(', ')}] has ${sizeOf(view)} ranks, the grid has ${this.size}`,
      );
    }
    const { sharedDims } = view;
    refuseRepeated(sharedDims, `the shared dimensions of ${what}`);
    const base = this.#view(BASE);
    const enumeration = (f: Factorisation, dim: string, where: string): number[][] =>
      enumerate(f, dimIndices(f, [dim], where), this.ranks);
    // Together they then enumerate alike too: a group of two dimensions is what their own groups connect.
    for (const dim of sharedDims) {
      if (sameLists(enumeration(base, dim, 'the grid'), enumeration(view, dim, what))) continue;
      throw gridError('VIEW_SHARED', `the shared dimension '${dim}' gives other groups in ${what} than in the grid`);
    }
    this.#views.set(name, view);
  }

  hasView(name: string): boolean {
    return this.#views.has(name);
  }

  /**
   * The rank lists of the groups of ranks that differ only in `dims`, in the order they are created: ranks are in the
   * grid's order inside a group, groups in that of their first ranks; the order of `dims` does not matter.
   * @throws MbridgeError MB_GRID_UNKNOWN_DIM, _REPEATED_DIM, _EMPTY, _UNKNOWN_VIEW
   */
  rankEnum(dims: readonly string[], { view = BASE }: InView = {}): number[][] {
    const found = this.#view(view);
    return enumerate(found, dimIndices(found, dims, describe(view)), this.ranks);
  }

  /**
   * Creates the groups of a dim set, once; all ranks of the grid call it, in the same order. Where an earlier call made
   * groups of the very same ranks, they are shared instead. Resolves with this rank's group; NON_MEMBER outside the grid.
   * @throws MbridgeError MB_GRID_CREATED, _BACKEND, _RUNTIME, _RANK and those of `rankEnum`
   */
  async createPg<G extends ProcessGroup>(
    dims: readonly string[],
    runtime: GroupRuntime<G>,
    { view = BASE }: InView = {},
  ): Promise<G | NonMember> {
    return this.#create(this.#key(dims, view), this.rankEnum(dims, { view }), runtime);
  }

  /**
   * Creates groups that are not a dim set but derived from one, such as the first and last rank of each pipeline.
   * @param name its key for `getDerived`; not a dimension
   * @param derive from the rank lists of `dims` (all of them, on every rank) to disjoint lists
   */
  async createDerived<G extends ProcessGroup>(
    name: string,
    dims: readonly string[],
    derive: (group: readonly number[]) => readonly number[],
    runtime: GroupRuntime<G>,
  ): Promise<G | NonMember> {
    const place = (rank: number): number => this.#places.get(rank) ?? this.size;
    const lists = this.rankEnum(dims).map((group) => [...derive(group)].sort((a, b) => place(a) - place(b)));
    return this.#create(derivedKey(name), lists, runtime);
  }

  /**
   * This rank's group of a dim set: a lookup that never creates. Its type is that of the runtime that made it.
   * @throws MbridgeError MB_GRID_NOT_CREATED and those of `rankEnum`
   */
  getPg<G extends ProcessGroup = ProcessGroup>(dims: readonly string[], { view = BASE }: InView = {}): G | NonMember {
    return this.#table.get(this.#key(dims, view)) as G | NonMember;
  }

  /** This rank's group of those made by `createDerived`. */
  getDerived<G extends ProcessGroup = ProcessGroup>(name: string): G | NonMember {
    return this.#table.get(derivedKey(name)) as G | NonMember;
  }

  isRankInGrid(rank: number): boolean {
    return this.#places.has(rank);
  }

  /** A rank's index in each dimension. @throws MbridgeError MB_GRID_RANK if it is outside the grid */
  coordinates(rank: number, { view = BASE }: InView = {}): Record<string, number> {
    const place = this.#places.get(rank);
    if (place === undefined) {
      throw gridError('RANK', `rank ${rank} is outside the grid of ranks ${formatRanks(this.ranks)}`);
    }
    const { shape, dimNames } = this.#view(view);
    let rest = place;
    return Object.fromEntries(
      dimNames.map((dim, i) => {
        const index = rest % shape[i]!;
        rest = Math.floor(rest / shape[i]!);
        return [dim, index];
      }),
    );
  }

  /** Destroys every group of this rank once. The grid can then create groups anew. */
  destroy(): void {
    this.#table.destroy();
    this.#runtime = undefined;
  }

  async #create<G extends ProcessGroup>(
    key: string,
    lists: readonly (readonly number[])[],
    runtime: GroupRuntime<G>,
  ): Promise<G | NonMember> {
    const { rank } = runtime;
    if (!Number.isSafeInteger(rank) || rank < 0 || rank >= this.worldSize) {
      throw gridError('RANK', `rank ${rank} is not in a world of ${this.worldSize}`);
    }
    if (runtime.backend !== undefined && runtime.backend !== this.backend) {
      throw gridError('BACKEND', `the grid is for '${this.backend}', its communicators would be '${runtime.backend}'`);
    }
    this.#runtime ??= runtime;
    if (this.#runtime !== runtime) throw gridError('RUNTIME', 'all groups of a grid come from one runtime');
    const source: GroupRuntime = this.isRankInGrid(rank)
      ? runtime
      : { rank, createGroups: () => Promise.resolve(NON_MEMBER) };
    const runtimeKey = this.name === undefined ? key : `${this.name}/${key}`;
    // Sound: every group in the table was made by this runtime.
    return (await this.#table.create(key, lists, source, runtimeKey)) as G | NonMember;
  }

  /** Dims slowest first, as in "pp-dp"; a view's own groups carry its name. */
  #key(dims: readonly string[], view: string): string {
    const found = this.#view(view);
    const indices = dimIndices(found, dims, describe(view));
    const joined = indices
      .reverse()
      .map((i) => found.dimNames[i]!)
      .join('-');
    const isBase = view === BASE || dims.every((dim) => found.sharedDims.includes(dim));
    if (!isBase) return `${view}:${joined}`;
    return view === BASE ? joined : this.#key(dims, BASE);
  }

  #view(name: string): View {
    const view = this.#views.get(name);
    if (view !== undefined) return view;
    throw gridError('UNKNOWN_VIEW', `view '${name}' is not registered`, {
      hint: `registered views are ${[...this.#views.keys()].join(', ')}`,
    });
  }
}

/** The ranks of a grid of these options, checked. */
function ranksOf({ rankOffset, ranks, worldSize }: HyperCommGridOptions, base: Factorisation): number[] {
  const size = sizeOf(base);
  const grid = `a grid of shape [${base.shape.join(', ')}] has ${size} ranks`;
  if (ranks === undefined) {
    const first = rankOffset ?? 0;
    if (!Number.isSafeInteger(first) || first < 0) {
      throw gridError('OFFSET', `the rank offset must be an integer of at least 0, got ${first}`);
    }
    if (size > worldSize - first) {
      throw gridError(
        'OVERSIZED',
        `${grid}; the world has ${worldSize}, ${Math.max(0, worldSize - first)} of them from rank ${first} on`,
        { hint: 'start more ranks, or lower the sizes', details: { size, worldSize, rankOffset: first } },
      );
    }
    return Array.from({ length: size }, (_, place) => first + place);
  }
  const refuse = (found: string, hint: string): MbridgeError =>
    gridError('RANKS', `${found} (ranks: [${ranks.join(', ')}])`, { hint, details: { ranks, worldSize } });
  if (rankOffset !== undefined) throw refuse(`ranks and a rank offset of ${rankOffset}`, 'give one of them');
  if (ranks.length !== size) throw refuse(`${grid}, ${ranks.length} are listed`, 'list as many, or change the shape');
  ranks.forEach((rank, place) => {
    if (!Number.isSafeInteger(rank) || rank < 0 || rank >= worldSize) {
      throw refuse(`rank ${rank} is not in a world of ${worldSize}`, `ranks are 0 to ${worldSize - 1}`);
    }
    if (ranks.indexOf(rank) !== place) throw refuse(`rank ${rank} is listed twice`, 'a rank has one place in a grid');
  });
  return [...ranks];
}

function derivedKey(name: string): string {
  return `derived:${name}`;
}

function describe(view: string): string {
  return view === BASE ? 'the grid' : `view '${view}'`;
}

import { gridError } from './dimensions.js';
import { HyperCommGrid, type ViewOptions } from './hyper-comm-grid.js';

/** The name under which the arrangement of ranks for experts is registered: [etp, ep, edp, pp], pp shared. */
export const EXPERT_VIEW = 'expert';

/** Every field, in the order in which all ranks create the groups. */
export const GROUP_FIELDS = [
  ...(['tp', 'cp', 'pp', 'dp', 'mp', 'tpCp', 'tpDpCp', 'dpCp', 'intraDpCp', 'intraDistOpt', 'interDistOpt'] as const),
  ...(['ep', 'expertTp', 'tpEp', 'tpEpPp', 'expertDp', 'intraExpertDp', 'embd', 'posEmbd'] as const),
] as const;

export type GroupField = (typeof GROUP_FIELDS)[number];

/** What a model's training communicates over, and so what is made unless others are asked for: each costs memory. */
export const TRAINING_FIELDS = [
  'tp',
  'cp',
  'pp',
  'dp',
  'dpCp',
  'intraDistOpt',
  'embd',
] as const satisfies readonly GroupField[];

/** Those of a model: first and last stage meet only where one's embedding is the other's output projection. */
export function trainingFields({ tied }: { tied: boolean }): readonly GroupField[] {
  return TRAINING_FIELDS.filter((field) => tied || field !== 'embd');
}

/** How a field's groups come from a grid with the dimensions tp, cp, dp and pp. */
export type FieldSource =
  /** Ranks that differ only in these dimensions; 'all' is the whole grid. */
  | { readonly kind: 'dims'; readonly dims: readonly string[] | 'all'; readonly view?: typeof EXPERT_VIEW }
  /** Some ranks of each pipeline. */
  | { readonly kind: 'derived'; readonly derive: (pipeline: readonly number[]) => number[] }
  /** The very groups of another field. */
  | { readonly kind: 'same'; readonly as: GroupField }
  /** No groups: there is one instance of the optimizer. */
  | { readonly kind: 'none' };

const first = (pipeline: readonly number[]): number => pipeline[0]!;
const last = (pipeline: readonly number[]): number => pipeline[pipeline.length - 1]!;

export const FIELD_SOURCES: Readonly<Record<GroupField, FieldSource>> = {
  tp: { kind: 'dims', dims: ['tp'] },
  cp: { kind: 'dims', dims: ['cp'] },
  pp: { kind: 'dims', dims: ['pp'] },
  dp: { kind: 'dims', dims: ['dp'] },
  mp: { kind: 'dims', dims: ['tp', 'pp'] },
  tpCp: { kind: 'dims', dims: ['tp', 'cp'] },
  tpDpCp: { kind: 'dims', dims: ['tp', 'dp', 'cp'] },
  dpCp: { kind: 'dims', dims: ['dp', 'cp'] },
  intraDpCp: { kind: 'same', as: 'dpCp' },
  intraDistOpt: { kind: 'dims', dims: 'all' },
  interDistOpt: { kind: 'none' },
  ep: { kind: 'dims', dims: ['ep'], view: EXPERT_VIEW },
  expertTp: { kind: 'dims', dims: ['etp'], view: EXPERT_VIEW },
  tpEp: { kind: 'dims', dims: ['etp', 'ep'], view: EXPERT_VIEW },
  tpEpPp: { kind: 'dims', dims: ['etp', 'ep', 'pp'], view: EXPERT_VIEW },
  expertDp: { kind: 'dims', dims: ['edp'], view: EXPERT_VIEW },
  intraExpertDp: { kind: 'same', as: 'expertDp' },
  embd: { kind: 'derived', derive: (pipeline) => [...new Set([first(pipeline), last(pipeline)])] },
  posEmbd: { kind: 'derived', derive: (pipeline) => [first(pipeline)] },
};

export interface ExpertSizes {
  /** Expert parallel size; 1 by default. */
  readonly ep?: number;
  /** Tensor parallel size inside an expert; that of the dense layers by default. */
  readonly etp?: number;
}

/**
 * The arrangement of a grid's ranks for experts, [etp, ep, edp, pp]: what is not etp, ep or pp (so cp too) is edp.
 * @throws MbridgeError MB_GRID_EXPERTS if the ranks of a pipeline stage do not divide by etp * ep
 */
export function expertView(grid: HyperCommGrid, sizes: ExpertSizes = {}): ViewOptions {
  const { ep = 1, etp = sizeOfDim(grid, 'tp') } = sizes;
  const pp = sizeOfDim(grid, 'pp');
  const edp = grid.size / (pp * etp * ep);
  if (!Number.isSafeInteger(edp)) {
    throw gridError(
      'EXPERTS',
      `the ${grid.size / pp} ranks of a pipeline stage do not divide by etp ${etp} x ep ${ep}`,
    );
  }
  return { shape: [etp, ep, edp, pp], dimNames: ['etp', 'ep', 'edp', 'pp'], sharedDims: ['pp'] };
}

/**
 * The rank lists of every field's groups over a grid [tp, cp, dp, pp], without creating anything. A field that has no
 * groups (interDistOpt) has an empty list.
 */
export function groupRanks(grid: HyperCommGrid, sizes: ExpertSizes = {}): Record<GroupField, number[][]> {
  const { shape, dimNames, ranks, worldSize, backend } = grid;
  const plan = new HyperCommGrid({ shape, dimNames, ranks, worldSize, backend });
  plan.registerView(EXPERT_VIEW, expertView(grid, sizes));
  const lists = (source: FieldSource): number[][] => {
    switch (source.kind) {
      case 'dims':
        return plan.rankEnum(source.dims === 'all' ? plan.dimNames : source.dims, viewOf(source));
      case 'derived':
        return plan.rankEnum(['pp']).map((pipeline) => source.derive(pipeline));
      case 'same':
        return lists(FIELD_SOURCES[source.as]);
      case 'none':
        return [];
    }
  };
  return Object.fromEntries(GROUP_FIELDS.map((field) => [field, lists(FIELD_SOURCES[field])])) as Record<
    GroupField,
    number[][]
  >;
}

/** The `view` option of grid calls for a field. */
export function viewOf(source: { readonly view?: typeof EXPERT_VIEW }): { view?: typeof EXPERT_VIEW } {
  return source.view === undefined ? {} : { view: source.view };
}

function sizeOfDim(grid: HyperCommGrid, dim: string): number {
  const size = grid.shape[grid.dimNames.indexOf(dim)];
  if (size === undefined)
    throw gridError('UNKNOWN_DIM', `'${dim}' is not a dimension of the grid (${grid.dimNames.join(', ')})`);
  return size;
}

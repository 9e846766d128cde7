import type { ModelConfig } from '../config/schema.js';
import { MemoryPlan } from '../engine/memory-plan.js';
import { adapterParameters, isAdapterParameter } from '../families/adapters.js';
import { FINAL_NORM, VALUE_HEAD } from '../families/decoder.js';
import { layerNorms, modelParameters, type Parameter } from '../families/parameters.js';
import { groupRanks } from '../groups/grid/group-fields.js';
import type { HyperCommGrid } from '../groups/grid/hyper-comm-grid.js';
import type { Bucket } from '../model/parameters/bucket.js';
import { countedInNorm, gradientSums, type GradientSum } from '../model/parameters/gradient-sums.js';
import type { ParameterSpec } from '../model/parameters/parameter.js';
import { countsLoss, partSpec, type PartSpec } from '../model/stage/stage-spec.js';
import { layOutParameters } from '../model/stage/stage.js';

/** A bucket of one rank: what it holds, and what becomes of its gradient. */
export interface PlacedBucket {
  readonly name: string;
  readonly trainable: boolean;
  readonly parameters: readonly ParameterSpec[];
  /** What its gradient is summed over, one sum after the other, in global ranks. */
  readonly sums: readonly { readonly group: GradientSum; readonly ranks: readonly number[] }[];
  /** Whether this rank counts it in the norm of the whole gradient. */
  readonly counted: boolean;
}

export interface PlacedRank {
  readonly rank: number;
  readonly at: { readonly tp: number; readonly cp: number; readonly dp: number; readonly pp: number };
  readonly buckets: readonly PlacedBucket[];
  /** The totals of an update: whether this rank's loss and tokens count, and the ranks whose are added up. */
  readonly totals: { readonly counted: boolean; readonly ranks: readonly number[] };
}

/** Where a model's parameters lie, and over which ranks their gradients are summed. */
export interface Placement {
  /** Every parameter, once. */
  readonly parameters: readonly Parameter[];
  readonly stages: number;
  /** The parameter that the first stage and the last hold, if there is one. */
  readonly tied: string | null;
  /** What of the gradient each tp rank computes where all of them hold the whole parameter; null: all of it. */
  readonly partOnTp: (name: string) => string | null;
  readonly ranks: readonly PlacedRank[];
}

type PartOptions = Parameters<typeof partSpec>[2];

/** The placement of a model over a grid [tp, cp, dp, pp]: of the very buckets that training allocates. Pure. */
export function planPlacement(model: ModelConfig, options: PartOptions, grid: HyperCommGrid): Placement {
  const size = (dim: string): number => grid.shape[grid.dimNames.indexOf(dim)] ?? 1;
  const [tp, pp, dpCp] = [size('tp'), size('pp'), size('dp') * size('cp')];
  const groups = groupRanks(grid);
  const listsOf = (field: GradientSum | 'intraDistOpt'): ReadonlyMap<number, readonly number[]> =>
    new Map(groups[field].flatMap((ranks) => ranks.map((rank) => [rank, ranks] as const)));
  const lists = { tp: listsOf('tp'), dpCp: listsOf('dpCp'), embd: listsOf('embd') };
  const all = listsOf('intraDistOpt');
  // Ranks that differ only in cp or dp hold the same.
  const parts = new Map<string, HeldBucket[]>();
  const specOf = (at: PlacedRank['at']): PartSpec =>
    partSpec(
      model,
      { tp: { size: tp, rank: at.tp }, pp: { size: pp, rank: at.pp }, dpCp: { size: dpCp, rank: 0 } },
      options,
    );
  const ranks = grid.ranks.map((rank): PlacedRank => {
    const { tp: t = 0, cp = 0, dp = 0, pp: p = 0 } = grid.coordinates(rank);
    const at = { tp: t, cp, dp, pp: p };
    const key = `${t} ${p}`;
    const held = parts.get(key) ?? heldBuckets(layOutParameters(new MemoryPlan(), specOf(at), null).buffer.buckets);
    parts.set(key, held);
    const counted = p === pp - 1 && countsLoss({ size: tp, rank: t });
    return {
      rank,
      at,
      buckets: placedBuckets(held, t, (group) => lists[group].get(rank) ?? [rank]),
      totals: { counted, ranks: all.get(rank) ?? [rank] },
    };
  });
  const { shape, sequenceParallel, adapters, head } = specOf({ tp: 0, cp: 0, dp: 0, pp: 0 });
  const own = modelParameters(shape, head);
  const norms = layerNorms(shape);
  return {
    parameters: adapters === null ? own : [...own, ...adapterParameters(shape, adapters)],
    stages: pp,
    tied: shape.tieWordEmbeddings && head === 'language' && pp > 1 ? (own[0]?.name ?? null) : null,
    partOnTp: (name) => {
      if (isAdapterParameter(name)) return 'its columns';
      if (name === VALUE_HEAD) return 'all of it on the first, nothing on the others';
      const norm = norms.find((each) => name.endsWith(`.${each.name}.weight`));
      if (norm?.width === 'head') return 'its heads';
      return sequenceParallel && (norm !== undefined || name === FINAL_NORM) ? 'its tokens' : null;
    },
    ranks,
  };
}

interface HeldBucket {
  readonly bucket: Bucket;
  readonly parameters: readonly ParameterSpec[];
}

export function heldBuckets(buckets: readonly Bucket[]): HeldBucket[] {
  return buckets.map((bucket) => ({ bucket, parameters: bucket.entries.map(({ spec }) => spec) }));
}

/** @param ranksOf the group of this rank */
export function placedBuckets(
  held: readonly HeldBucket[],
  tpRank: number,
  ranksOf: (group: GradientSum, bucket: Bucket) => readonly number[],
): PlacedBucket[] {
  return held.map(({ bucket, parameters }) => ({
    name: bucket.name,
    trainable: bucket.trainable,
    parameters,
    sums: gradientSums(bucket).map((group) => ({ group, ranks: ranksOf(group, bucket) })),
    counted: countedInNorm(bucket.kind, tpRank),
  }));
}

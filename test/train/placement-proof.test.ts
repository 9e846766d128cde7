import { describe, expect, test } from 'vitest';
import type { MbridgeError } from '../../src/base/errors.js';
import { adaptersOf } from '../../src/families/adapters.js';
import { HyperCommGrid } from '../../src/groups/grid/hyper-comm-grid.js';
import type { PartSpec } from '../../src/model/stage/stage-spec.js';
import { planPlacement, type PlacedBucket, type PlacedRank, type Placement } from '../../src/train/placement-plan.js';
import { provePlacement } from '../../src/train/placement-proof.js';
import { FAMILY_FIXTURES, FIXTURES, loadFixture, type FixtureName } from '../helpers/fixture.js';
import { label, layoutConfig, ranksOf, type Layout } from '../parity/run-fixture.js';

type Options = Partial<Pick<PartSpec, 'head' | 'adapters' | 'gradients' | 'trainable'>>;

function placementOf(fixture: FixtureName, layout: Layout, options: Options = {}): Placement {
  const { model } = layoutConfig(loadFixture(fixture), layout, {});
  const { tp, cp = 1, pp, dp } = layout;
  const grid = new HyperCommGrid({
    shape: [tp, cp, dp, pp],
    dimNames: ['tp', 'cp', 'dp', 'pp'],
    worldSize: ranksOf(layout),
    backend: 'nccl',
  });
  const all = {
    dtype: 'f32',
    trainable: true,
    frozen: [],
    adapters: null,
    gradients: 'whole',
    gradientType: 'f32',
    head: 'language',
  } as const;
  return planPlacement(model, { ...all, ...options }, grid);
}

const WITHOUT = ['model.sequence_parallel=false'];
const LAYOUTS: Layout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 2, set: WITHOUT },
  { tp: 1, pp: 2, dp: 2 },
  { tp: 2, pp: 2, dp: 2 },
  { tp: 2, pp: 2, dp: 2, set: WITHOUT },
  { tp: 1, cp: 2, pp: 1, dp: 2 },
  { tp: 1, cp: 4, pp: 1, dp: 1 },
  { tp: 2, cp: 2, pp: 2, dp: 2 },
  { tp: 1, pp: 2, dp: 1, set: ['model.virtual_pipeline_model_parallel_size=2'] },
];
const LORA = adaptersOf({ type: 'lora', dim: 4, alpha: 8, target_modules: ['linear_qkv', 'linear_proj', 'down_proj'] });
const KINDS: Record<string, Options> = {
  'all of it trained': {},
  'of shards of gradients': { gradients: 'shard' },
  'with adapters': { adapters: LORA },
  'of values': { head: 'value' },
  'with one bucket trained': { trainable: /^head-norms$/ },
};

describe.each([...FIXTURES, ...FAMILY_FIXTURES])('%s', (fixture) => {
  const { shape } = loadFixture(fixture);
  const layouts = LAYOUTS.filter(
    ({ tp, pp, set = [] }) =>
      shape.numKvHeads % tp === 0 && shape.numLayers % (pp * (set.join().includes('virtual') ? 2 : 1)) === 0,
  );
  test.each(Object.entries(KINDS))('a model %s is proven on every layout', (_, options) => {
    expect(layouts.length).toBeGreaterThan(5);
    for (const layout of layouts) {
      expect(() => {
        provePlacement(placementOf(fixture, layout, options));
      }, label(layout)).not.toThrow();
    }
  });
});

type Change<T> = (what: T, rank: PlacedRank) => T;

/** The placement with some ranks' bucket of that name changed. */
function changed(
  placement: Placement,
  name: string,
  change: Change<PlacedBucket>,
  where: (rank: PlacedRank) => boolean = () => true,
): Placement {
  const ranks = placement.ranks.map((rank) => {
    if (!where(rank)) return rank;
    return { ...rank, buckets: rank.buckets.map((bucket) => (bucket.name === name ? change(bucket, rank) : bucket)) };
  });
  return { ...placement, ranks };
}

const without =
  (group: string): Change<PlacedBucket> =>
  (bucket) => ({ ...bucket, sums: bucket.sums.filter((sum) => sum.group !== group) });

const over =
  (group: string, ranksOf: (rank: number) => number[]): Change<PlacedBucket> =>
  (bucket, { rank }) => ({
    ...bucket,
    sums: bucket.sums.map((sum) => (sum.group === group ? { ...sum, ranks: ranksOf(rank) } : sum)),
  });

const TP2: Layout = { tp: 2, pp: 1, dp: 2 };
const TP2_CP2: Layout = { tp: 2, cp: 2, pp: 1, dp: 2 };
const PP2: Layout = { tp: 1, pp: 2, dp: 2 };

interface Fault {
  fault: string;
  on: Layout;
  options?: Options;
  plant: (placement: Placement) => Placement;
  found: string;
}

test.each<Fault>([
  {
    fault: 'the sum of q- and k-norms over tp is missing',
    on: TP2,
    plant: (placement) => changed(placement, 'head-norms', without('tp')),
    found:
      'model.layers.0.self_attn.q_norm.weight: its gradient on rank 0 is summed over dpCp [0,2], so over ranks 0, 2; expected ranks 0-3, for each tp rank computes a part of it (its heads)',
  },
  {
    fault: 'the sum of q- and k-norms is missing without sequence parallelism too',
    on: { ...TP2, set: WITHOUT },
    plant: (placement) => changed(placement, 'head-norms', without('tp')),
    found:
      'model.layers.0.self_attn.q_norm.weight: its gradient on rank 0 is summed over dpCp [0,2], so over ranks 0, 2; expected ranks 0-3, for each tp rank computes a part of it (its heads)',
  },
  {
    fault: 'norms are not summed over the ranks of a sequence',
    on: TP2,
    plant: (placement) => changed(placement, 'norms', without('tp')),
    found:
      'model.layers.0.input_layernorm.weight: its gradient on rank 0 is summed over dpCp [0,2], so over ranks 0, 2; expected ranks 0-3, for each tp rank computes a part of it (its tokens)',
  },
  {
    fault: 'norms that are whole on every tp rank are summed over tp',
    on: { ...TP2, set: WITHOUT },
    plant: (placement) =>
      changed(placement, 'norms', (bucket, { rank }) => {
        const pair = rank - (rank % 2);
        return { ...bucket, sums: [{ group: 'tp', ranks: [pair, pair + 1] }, ...bucket.sums] };
      }),
    found:
      'model.layers.0.input_layernorm.weight: its gradient on rank 0 is summed over tp [0,1] and dpCp [0,2], so over ranks 0-3; expected ranks 0, 2',
  },
  {
    fault: 'a layer is summed over dp, and not over cp as well',
    on: TP2_CP2,
    plant: (placement) =>
      changed(
        placement,
        'layer.1',
        over('dpCp', (rank) => [rank % 4, (rank % 4) + 4]),
      ),
    found:
      'model.layers.1.self_attn.q_proj.weight: its gradient on rank 0 is summed over dpCp [0,4], so over ranks 0, 4; expected ranks 0, 2, 4, 6',
  },
  {
    fault: 'a layer is summed over the whole world',
    on: TP2,
    plant: (placement) =>
      changed(
        placement,
        'layer.0',
        over('dpCp', () => [0, 1, 2, 3]),
      ),
    found:
      'model.layers.0.self_attn.q_proj.weight: its gradient on rank 0 is summed over dpCp [0,1,2,3], so over ranks 0-3; expected ranks 0, 2',
  },
  {
    fault: 'one rank alone has the group of another',
    on: TP2,
    plant: (placement) =>
      changed(
        placement,
        'layer.0',
        over('dpCp', () => [1, 3]),
        ({ rank }) => rank === 2,
      ),
    found:
      'model.layers.0.self_attn.q_proj.weight: its gradient on rank 2 is summed over dpCp [1,3], so over ranks 1, 3; expected ranks 0, 2',
  },
  {
    fault: 'a sum counts ranks twice',
    on: TP2,
    plant: (placement) =>
      changed(
        placement,
        'norms',
        over('tp', () => [0, 1, 2, 3]),
      ),
    found:
      'model.layers.0.input_layernorm.weight: its gradient on rank 0 is summed over tp [0,1,2,3] and dpCp [0,2], so over ranks 0-3, some of them more than once; expected ranks 0-3, for each tp rank computes a part of it (its tokens)',
  },
  {
    fault: 'the copies of a tied embedding are not summed',
    on: PP2,
    plant: (placement) => changed(placement, 'embedding', without('embd')),
    found:
      'model.embed_tokens.weight: its gradient on rank 0 is summed over dpCp [0,1], so over ranks 0-1; expected ranks 0-3',
  },
  {
    fault: 'the copies of a tied embedding are summed over the ranks of another replica',
    on: PP2,
    plant: (placement) =>
      changed(
        placement,
        'embedding',
        over('embd', (rank) => (rank < 2 ? [0, 1] : [2, 3])),
      ),
    found:
      'model.embed_tokens.weight: its gradient on rank 0 is summed over dpCp [0,1] and embd [0,1], so over ranks 0-1, some of them more than once; expected ranks 0-3',
  },
  {
    fault: 'whole factors of adapters are not summed over tp',
    on: TP2,
    options: { adapters: LORA },
    plant: (placement) => changed(placement, 'adapters-shared', without('tp')),
    found: '.lora_A.weight: its gradient on rank 0 is summed over dpCp [0,2], so over ranks 0, 2; expected ranks 0-3',
  },
  {
    fault: 'the row of a value model is not summed over tp',
    on: TP2,
    options: { head: 'value' },
    plant: (placement) => changed(placement, 'value', without('tp')),
    found: 'score.weight: its gradient on rank 0 is summed over dpCp [0,2], so over ranks 0, 2; expected ranks 0-3',
  },
  {
    fault: 'a weight that every tp rank holds is in the norm on each of them',
    on: TP2,
    plant: (placement) => changed(placement, 'head-norms', (bucket) => ({ ...bucket, counted: true })),
    found:
      'model.layers.0.self_attn.q_norm.weight: ranks 0-1 count it in the gradient norm, of ranks 0-1 that hold the same; expected one',
  },
  {
    fault: 'a part of a weight is not in the norm, as if it were another copy',
    on: TP2,
    plant: (placement) => changed(placement, 'layer.0', (bucket, { at }) => ({ ...bucket, counted: at.tp === 0 })),
    found:
      'model.layers.0.self_attn.q_proj.weight: no rank counts it in the gradient norm, of rank 1 that hold the same; expected one',
  },
  {
    fault: 'both copies of a tied embedding are in the norm',
    on: PP2,
    plant: (placement) => changed(placement, 'embedding', (bucket) => ({ ...bucket, counted: true })),
    found:
      'model.embed_tokens.weight: ranks 0, 2 count it in the gradient norm, of ranks 0, 2 that hold the same; expected one',
  },
  {
    fault: "a stage numbers its layers by itself, as if its first were the model's",
    on: PP2,
    plant: (placement) =>
      changed(
        placement,
        'layer.2',
        (bucket) => ({
          ...bucket,
          parameters: bucket.parameters.map((spec) => ({ ...spec, name: spec.name.replace('layers.2', 'layers.0') })),
        }),
        ({ at }) => at.pp === 1,
      ),
    found: 'model.layers.0.self_attn.q_proj.weight: the pipeline stages 0-1 hold it; expected one alone',
  },
  {
    fault: 'a stage has no copy of the tied embedding',
    on: PP2,
    plant: (placement) =>
      changed(
        placement,
        'embedding',
        (bucket) => ({ ...bucket, parameters: [] }),
        ({ at }) => at.pp === 1,
      ),
    found: 'model.embed_tokens.weight: the pipeline stages 0 hold it; expected 0-1, for it is tied',
  },
  {
    fault: 'tp ranks hold the same part of a weight',
    on: TP2,
    plant: (placement) =>
      changed(
        placement,
        'layer.0',
        (bucket) => ({
          ...bucket,
          parameters: placement.ranks[0]!.buckets.find(({ name }) => name === 'layer.0')!.parameters,
        }),
        ({ at }) => at.tp === 1,
      ),
    found: 'model.layers.0.self_attn.q_proj.weight: its parts on the tp ranks of stage 0:',
  },
  {
    fault: 'tokens are added up over the replica alone',
    on: TP2_CP2,
    plant: (placement) => ({
      ...placement,
      ranks: placement.ranks.map((rank) => ({ ...rank, totals: { ...rank.totals, ranks: [rank.rank] } })),
    }),
    found: 'loss and tokens: on rank 0 those of dp 0, cp 1 are counted by no rank; expected by one',
  },
  {
    fault: 'every tp rank counts the tokens that all of them have',
    on: TP2,
    plant: (placement) => ({
      ...placement,
      ranks: placement.ranks.map((rank) => ({ ...rank, totals: { ...rank.totals, counted: true } })),
    }),
    found: 'loss and tokens: on rank 0 those of dp 0, cp 0 are counted by ranks 0-1; expected by one',
  },
])('$fault: it is found', ({ on, options, plant, found }) => {
  const placement = placementOf('qwen3-tied', on, options);
  expect(() => {
    provePlacement(placement);
  }).not.toThrow();
  let error: Partial<MbridgeError> = {};
  try {
    provePlacement(plant(placement));
  } catch (thrown) {
    error = thrown as MbridgeError;
  }
  expect(error.message).toContain(found);
  expect(error.code).toBe('MB_PLACEMENT_PLAN');
});

import { describe, expect, test } from 'vitest';
import { FAMILY_FIXTURES, FIXTURES, loadFixture, type FixtureName } from '../helpers/fixture.js';
import { farthest, fixtureConfig, label, trainSteps, type Layout } from './run-fixture.js';

const SP_OFF = 'model.sequence_parallel=false';
const MICRO_2 = 'train.micro_batch_size=2';
const VPP_2 = 'model.virtual_pipeline_model_parallel_size=2';
const P2P = 'model.cp_comm_type=p2p';
/** Parts of unequal size. */
const PARTS = 'model.loss_chunk_tokens=7';
const UNEVEN = ['model.num_layers_in_first_pipeline_stage=1', 'model.num_layers_in_last_pipeline_stage=3'];

const BASE: Layout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1, set: [SP_OFF] },
  { tp: 4, pp: 1, dp: 1 },
  { tp: 4, pp: 1, dp: 1, set: [SP_OFF, MICRO_2, PARTS] },
  { tp: 1, pp: 2, dp: 1 },
  { tp: 1, pp: 4, dp: 1, set: [MICRO_2] },
  { tp: 1, pp: 1, dp: 2 },
  { tp: 1, pp: 1, dp: 4, set: [MICRO_2, PARTS] },
  { tp: 2, pp: 2, dp: 1 },
  { tp: 2, pp: 2, dp: 2 },
  { tp: 1, pp: 2, dp: 1, set: [VPP_2] },
  { tp: 1, pp: 2, dp: 1, set: UNEVEN },
];

/** Sequences that ranks share. */
const CONTEXT: Layout[] = [
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
  { tp: 1, cp: 4, pp: 1, dp: 1, set: [MICRO_2, PARTS] },
  { tp: 2, cp: 2, pp: 1, dp: 1 },
  { tp: 2, cp: 2, pp: 1, dp: 1, set: [SP_OFF, MICRO_2] },
  { tp: 1, cp: 2, pp: 2, dp: 1, set: [VPP_2] },
  { tp: 1, cp: 2, pp: 1, dp: 2, set: ['ddp.data_parallel_sharding_strategy=optim_grads'] },
  { tp: 1, cp: 2, pp: 1, dp: 1, set: ['model.recompute_granularity=full'] },
];

/** More of the product of layouts and options; the whole of it in `npm run test:full`. */
const MORE: Layout[] = [
  { tp: 1, pp: 1, dp: 1, set: [MICRO_2] },
  { tp: 2, pp: 1, dp: 1, set: [MICRO_2] },
  { tp: 2, pp: 1, dp: 1, set: [SP_OFF, MICRO_2] },
  { tp: 4, pp: 1, dp: 1, set: [MICRO_2] },
  { tp: 4, pp: 1, dp: 1, set: [SP_OFF] },
  { tp: 1, pp: 2, dp: 1, set: [MICRO_2] },
  { tp: 1, pp: 4, dp: 1 },
  { tp: 1, pp: 1, dp: 2, set: [MICRO_2] },
  { tp: 1, pp: 1, dp: 4 },
  { tp: 2, pp: 2, dp: 1, set: [MICRO_2] },
  { tp: 2, pp: 2, dp: 1, set: [SP_OFF] },
  { tp: 2, pp: 2, dp: 2, set: [MICRO_2] },
  { tp: 2, pp: 2, dp: 2, set: [SP_OFF, MICRO_2] },
  { tp: 2, pp: 2, dp: 1, set: [VPP_2] },
  { tp: 1, pp: 2, dp: 2, set: [VPP_2, MICRO_2] },
  { tp: 2, pp: 2, dp: 2, set: UNEVEN },
  {
    tp: 1,
    pp: 1,
    dp: 2,
    set: ['ddp.data_parallel_sharding_strategy=no_shard', 'optimizer.use_distributed_optimizer=false'],
  },
  { tp: 1, pp: 1, dp: 2, set: ['ddp.data_parallel_sharding_strategy=optim_grads'] },
  { tp: 2, pp: 1, dp: 2, set: ['dist.peer_memory=false'] },
  { tp: 1, pp: 1, dp: 1, set: ['model.recompute_granularity=selective'] },
  { tp: 2, pp: 2, dp: 1, set: ['model.recompute_granularity=full'] },
  { tp: 1, cp: 2, pp: 1, dp: 1, set: [MICRO_2] },
  { tp: 1, cp: 4, pp: 1, dp: 1 },
  { tp: 1, cp: 2, pp: 2, dp: 1 },
  { tp: 1, cp: 2, pp: 1, dp: 2, set: [MICRO_2] },
  { tp: 2, cp: 2, pp: 2, dp: 1, set: [SP_OFF] },
  { tp: 1, cp: 2, pp: 1, dp: 1, set: ['model.recompute_granularity=selective'] },
  { tp: 2, cp: 2, pp: 1, dp: 1, set: ['dist.peer_memory=false', 'model.recompute_granularity=full'] },
  {
    tp: 1,
    cp: 2,
    pp: 1,
    dp: 2,
    set: ['ddp.data_parallel_sharding_strategy=no_shard', 'optimizer.use_distributed_optimizer=false'],
  },
];

/** The same with keys and values of one rank after the other. */
const RING: Layout[] = [...CONTEXT, ...MORE]
  .filter(({ cp = 1 }) => cp > 1)
  .map((layout) => ({ ...layout, set: [...(layout.set ?? []), P2P] }));

const ALL = [...BASE, ...CONTEXT, ...MORE, ...RING];
/** In CI: of the families, of the stretched frequencies, of packed documents, of the first fixture, of the others. */
const CI = {
  family: [...[7, 9].map((i) => BASE[i]!), CONTEXT[0]!],
  rope: [BASE[0]!, CONTEXT[0]!],
  packed: [BASE[0]!, BASE[10]!, CONTEXT[0]!, CONTEXT[1]!, CONTEXT[7]!, RING[2]!],
  first: [
    ...[0, 1, 2, 4, 5, 6, 8, 10, 11, 12].map((i) => BASE[i]!),
    ...[1, 2, 4, 5, 6].map((i) => CONTEXT[i]!),
    ...MORE.slice(16, 18),
    RING[2]!,
  ],
  other: [...[1, 5, 10].map((i) => BASE[i]!), CONTEXT[1]!, RING[1]!],
};

const full = process.env['MBRIDGE_TEST_FULL'] === '1';

/** tp must divide the heads; in CI the other fixtures run on the layouts that differ for them. */
function layoutsOf(name: FixtureName): Layout[] {
  const {
    shape: { numKvHeads, numLayers },
    trajectory: { batch },
  } = loadFixture(name);
  const fits = ({ tp, pp, dp, set = [] }: Layout): boolean =>
    numKvHeads % tp === 0 &&
    pp * (set.includes(VPP_2) ? 2 : 1) <= numLayers &&
    batch % (dp * 2) === 0 &&
    set !== UNEVEN;
  const family = name === 'qwen3-yarn' ? CI.rope : name === 'qwen3-packed' ? CI.packed : CI.family;
  if ((FAMILY_FIXTURES as readonly string[]).includes(name)) return (full ? ALL : family).filter(fits);
  const ci = name === 'qwen3-tied' ? CI.first : CI.other;
  return (full ? ALL : ci).filter(({ tp }) => numKvHeads % tp === 0);
}

describe.each([...FIXTURES, ...FAMILY_FIXTURES])('%s', (name) => {
  const fixture = loadFixture(name);
  test.each(layoutsOf(name).map((layout) => ({ name: label(layout), layout })))(
    'trains as transformers and torch do on $name',
    async ({ layout }) => {
      const steps = await trainSteps(fixtureConfig(fixture), layout);
      const reference = fixture.trajectory.steps;
      expect(farthest(steps, reference, 'loss')).toBeLessThan(2e-5);
      expect(farthest(steps, reference, 'grad_norm')).toBeLessThan(2e-4);
      expect(farthest(steps, reference, 'lr')).toBeLessThan(1e-12);
    },
  );
});

import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { groupRanks, TRAINING_FIELDS } from '../../src/groups/grid/group-fields.js';
import { HyperCommGrid } from '../../src/groups/grid/hyper-comm-grid.js';
import { planRun } from '../../src/train/plan.js';
import { runtimeAllowances } from '../../src/train/runtime-allowance.js';

/** GiB beside the arena in the memory table of docs/performance.md, where devices held within 1.3 % of the whole of it. */
test.each([
  { tp: 1, dp: 1, pp: 1, gib: 0.6 },
  { tp: 1, dp: 2, pp: 1, gib: 1.08 },
  { tp: 2, dp: 1, pp: 1, gib: 1.08 },
  { tp: 1, dp: 1, pp: 2, gib: 1.08 },
  { tp: 1, dp: 4, pp: 1, gib: 1.43 },
  { tp: 2, dp: 2, pp: 1, gib: 2.4 },
  { tp: 2, dp: 1, pp: 2, gib: 2.4 },
])('tp $tp, dp $dp, pp $pp: each rank is allowed $gib GiB', ({ tp, dp, pp, gib }) => {
  const worldSize = tp * dp * pp;
  const dimNames = ['tp', 'cp', 'dp', 'pp'];
  const groups = groupRanks(new HyperCommGrid({ shape: [tp, 1, dp, pp], dimNames, worldSize, backend: 'nccl' }));
  const allowed = runtimeAllowances('cuda', worldSize, groups).map((bytes) => Number((bytes / 2 ** 30).toFixed(2)));
  expect(allowed).toEqual(Array(worldSize).fill(gib));
  expect(runtimeAllowances('cpu', worldSize, groups)).toEqual(Array(worldSize).fill(0));
});

test('a plan allows for the groups that a run makes, not for every name', () => {
  const config = qwen3TinyPretrainConfig({ tensor_model_parallel_size: 2, pipeline_model_parallel_size: 2 });
  const { groups, ranks } = planRun(config, 8, 'cuda');
  expect(Object.keys(groups)).toEqual(TRAINING_FIELDS);
  // The context, tp, pp and dp of two, and all eight; without mp and the stage's four, which nobody reads.
  expect(ranks[0]!.runtimeBytes).toBe(640e6 + 3 * (330e6 + 190e6) + (330e6 + 7 * 190e6));
});

test.each([true, false])('the ends of a pipeline are a group of their own where the embedding is tied: %s', (tied) => {
  const config = qwen3TinyPretrainConfig({ pipeline_model_parallel_size: 4, tie_word_embeddings: tied });
  const { groups, ranks } = planRun(config, 4, 'cuda');
  expect(groups['embd']).toEqual(tied ? [[0, 3]] : undefined);
  const pipeline = 640e6 + 330e6 + 3 * 190e6;
  expect(ranks.map(({ runtimeBytes }) => runtimeBytes - pipeline)).toEqual(
    tied ? [330e6 + 190e6, 0, 0, 330e6 + 190e6] : [0, 0, 0, 0],
  );
});

test('a communicator of many takes no more than one of a node', () => {
  const alone = 640e6 + 330e6 + 7 * 190e6;
  expect(runtimeAllowances('cuda', 8, { dp: [Array.from({ length: 8 }, (_, rank) => rank)] })[7]).toBe(alone);
  expect(runtimeAllowances('cuda', 512, { dp: [Array.from({ length: 512 }, (_, rank) => rank)] })[511]).toBe(alone);
});

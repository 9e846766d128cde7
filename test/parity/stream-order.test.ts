import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadFixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { label, layoutConfig, ranksOf, type Layout } from './run-fixture.js';

interface OrderEvent {
  type: 'order';
  rank: number;
  /** Pairs of accesses to the same memory from two streams, one of them a write, that no event orders. */
  races: string[];
  /** How many there would be without events. */
  blind: number;
  /** Calls of norms that are one with the collectives around them. */
  fused: number;
  /** Small all-reduces in the members' memory. */
  reduced: number;
}

const LAYOUTS: Layout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 2, pp: 1, dp: 1, set: ['model.recompute_granularity="full"'] },
  { tp: 1, pp: 1, dp: 1, set: ['model.recompute_granularity="selective"'] },
  { tp: 2, pp: 1, dp: 1, set: ['dist.peer_memory=false'] },
  { tp: 1, pp: 4, dp: 1 },
  { tp: 1, pp: 2, dp: 1, set: ['model.virtual_pipeline_model_parallel_size=2'] },
  { tp: 1, pp: 1, dp: 2 },
  { tp: 1, pp: 1, dp: 2, set: ['ddp.overlap_grad_reduce=false', 'ddp.overlap_param_gather=false'] },
  { tp: 1, pp: 1, dp: 2, set: ['ddp.data_parallel_sharding_strategy="optim_grads"'] },
  {
    tp: 1,
    pp: 1,
    dp: 2,
    set: ['ddp.data_parallel_sharding_strategy="no_shard"', 'optimizer.use_distributed_optimizer=false'],
  },
  { tp: 2, pp: 2, dp: 2, set: ['model.recompute_granularity="selective"'] },
  { tp: 1, pp: 2, dp: 2, set: ['ddp.data_parallel_sharding_strategy="optim_grads"'] },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 1, cp: 2, pp: 1, dp: 1, set: ['model.recompute_granularity="full"'] },
  { tp: 1, cp: 2, pp: 2, dp: 1, set: ['model.recompute_granularity="selective"'] },
  {
    ...{ tp: 2, cp: 2, pp: 1, dp: 1 },
    set: ['model.recompute_granularity="selective"', 'model.recompute_modules=["attention","mlp"]'],
  },
  { tp: 2, cp: 2, pp: 1, dp: 2 },
  { tp: 1, cp: 4, pp: 1, dp: 1, set: ['model.cp_comm_type="p2p"'] },
  { tp: 1, cp: 2, pp: 2, dp: 1, set: ['model.cp_comm_type="p2p"', 'model.recompute_granularity="full"'] },
];

test.each(LAYOUTS.map((layout) => ({ name: label(layout), layout })))(
  'streams never meet on the same memory without an event between them on $name',
  async ({ layout }) => {
    const save = join(temporaryFolder(), 'save');
    const config = layoutConfig(loadFixture('qwen3-tied'), layout, {
      'checkpoint.save': save,
      'checkpoint.save_interval': 1,
    });
    const nproc = ranksOf(layout);
    const { exitCode, events, log } = await runWorkers('stream-order', config, nproc);
    expect(exitCode, log).toBe(0);
    expect(events).toHaveLength(nproc);
    const { tp, set = [] } = layout;
    const alone = set.some((text) => /peer_memory=false|sequence_parallel=false/.test(text));
    for (const { rank, races, blind, fused } of events as OrderEvent[]) {
      expect(races, `rank ${rank}`).toEqual([]);
      // The watcher sees races where there are any: the copies of a checkpoint alone would be one.
      expect(blind, `rank ${rank}`).toBeGreaterThan(0);
      expect(fused > 0, `rank ${rank}: ${fused} fused norms`).toBe(tp > 1 && !alone);
    }
    // The loss's, on the last stage.
    const shares = tp > 1 && !set.includes('dist.peer_memory=false');
    expect((events as OrderEvent[]).some(({ reduced }) => reduced > 0)).toBe(shares);
  },
);

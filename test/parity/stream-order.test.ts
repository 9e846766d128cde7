import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { resolveConfig } from '../../src/config/resolve.js';
import { launch } from '../../src/launch/launch.js';
import { loadFixture } from '../helpers/fixture.js';
import { fixtureConfig, label, type Layout } from './run-fixture.js';

interface OrderEvent {
  type: 'order';
  rank: number;
  /** Pairs of accesses to the same memory from two streams, one of them a write, that no event orders. */
  races: string[];
  /** How many there would be without events. */
  blind: number;
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
];

test.each(LAYOUTS.map((layout) => ({ name: label(layout), layout })))(
  'streams never meet on the same memory without an event between them on $name',
  async ({ layout: { tp, pp, dp, set = [] } }) => {
    const folder = mkdtempSync(join(tmpdir(), 'mbridge-order-'));
    const flag = (path: string, value: unknown): { path: string; value: unknown; place: string } => ({
      path,
      value,
      place: path,
    });
    const config = resolveConfig({
      recipe: { name: 'fixture', config: fixtureConfig(loadFixture('qwen3-tied')) },
      flags: [
        flag('model.tensor_model_parallel_size', tp),
        flag('model.pipeline_model_parallel_size', pp),
        flag('checkpoint.save', join(folder, 'save')),
        flag('checkpoint.save_interval', 1),
        ...set.map((text) => flag(text.split('=')[0]!, JSON.parse(text.split('=')[1]!))),
      ],
    });
    let out = '';
    let log = '';
    try {
      const { exitCode } = await launch({
        name: 'order',
        config,
        nproc: tp * pp * dp,
        device: 'cpu',
        json: true,
        runDir: join(folder, 'run'),
        argv: [],
        workerModule: join(import.meta.dirname, '../workers/stream-order.mjs'),
        stdout: new Writable({ write: (chunk, _, done) => ((out += String(chunk)), done()) }),
        stderr: new Writable({ write: (chunk, _, done) => ((log += String(chunk)), done()) }),
      });
      expect(exitCode, log).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const events = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as OrderEvent | { type: 'result' })
      .filter((event) => event.type === 'order');
    expect(events).toHaveLength(tp * pp * dp);
    for (const { rank, races, blind } of events) {
      expect(races, `rank ${rank}`).toEqual([]);
      // The watcher sees races where there are any: the copies of a checkpoint alone would be one.
      expect(blind, `rank ${rank}`).toBeGreaterThan(0);
    }
  },
);

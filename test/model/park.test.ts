import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { planJob } from '../../src/train/plan-job.js';
import { runWorkers } from '../helpers/run-workers.js';

interface Parked {
  readonly type: 'parked';
  readonly rank: number;
  readonly layout: string;
  readonly differ: readonly string[];
  readonly codes: Readonly<Record<string, string>>;
  readonly bytes: Readonly<Record<string, number>>;
  readonly totalBytes: number;
  /** Of the process, by the first park and the second. */
  readonly fell: readonly number[];
  /** Communicators before each park, and after each unpark. */
  readonly groups: readonly number[];
  readonly left: Readonly<Record<string, number>>;
}

const GENERATION = { slots: 2, context: 16 };
const LAYOUTS = [
  { name: 'tp2 pp2', model: { tensor_model_parallel_size: 2, pipeline_model_parallel_size: 2 } },
  {
    name: 'tp2 dp2, sequence parallel, gradients sharded',
    model: { tensor_model_parallel_size: 2, sequence_parallel: true },
    ddp: { data_parallel_sharding_strategy: 'optim_grads' },
  },
];

test('a model that was parked, with another in its place, goes on with the same bits', async () => {
  const config = qwen3TinyPretrainConfig({ seq_length: 64, train_iters: 8, global_batch_size: 4, micro_batch_size: 1 });
  const { exitCode, events, log } = await runWorkers('park', config, 4, { layouts: LAYOUTS, generation: GENERATION });
  expect(exitCode, log).toBe(0);
  const found = events as unknown as Parked[];
  expect(found).toHaveLength(4 * LAYOUTS.length);
  for (const { layout, rank, differ, codes, bytes, totalBytes, fell, groups, left } of found) {
    const at = `${layout}, rank ${rank}`;
    expect(differ, at).toEqual([]);
    const { 'park before the update of a backward': early, 'unpark of a model that is there': absent, ...uses } = codes;
    expect(early, at).toBe('MB_PARK_GRADIENTS');
    expect(absent, at).toBe('MB_NOT_PARKED');
    const { unpark, ...others } = uses;
    expect(unpark, at).toBe('MB_NOT_PARKED');
    expect(others, at).toEqual(Object.fromEntries(Object.keys(others).map((name) => [name, 'MB_PARKED'])));
    const { model = {}, ddp = {} } = LAYOUTS.find(({ name }) => name === layout)!;
    const cfg = { ...config, model: { ...config.model, ...model }, ddp: { ...config.ddp, ...ddp } };
    const planned = planJob({
      worldSize: 4,
      device: 'cpu',
      models: [{ name: 'm', config: cfg, generation: GENERATION }],
    });
    const { bytes: plannedBytes, stateBytes } = planned.models[0]!.ranks[rank]!;
    // The workspace of the attention is the device's to say.
    expect({ ...plannedBytes, workspace: bytes['workspace'] }, at).toEqual(bytes);
    // The first time host memory of the state is taken.
    expect(stateBytes).toBeGreaterThan(2 ** 20);
    expect(Math.abs(fell[0]! - (totalBytes - stateBytes)), at).toBeLessThan(2 ** 20);
    expect(Math.abs(fell[1]! - totalBytes), at).toBeLessThan(2 ** 20);
    // Those of the other model were made between the first two.
    expect(groups[2], at).toBe(groups[1]);
    expect(groups[3], at).toBe(groups[1]);
    expect(groups[0], at).toBeGreaterThan(0);
    expect(left, at).toMatchObject({ arenas: 0, events: 0 });
  }
}, 120_000);

import { z } from 'zod';
import { bytes, count, device, output, precision } from './shape.js';

const layout = z.strictObject({
  world_size: count,
  tp: count,
  cp: count,
  dp: count,
  pp: count,
  vpp: count.describe('chunks a stage'),
  ep: count,
  micro_batches: count.describe('of one replica in an update'),
});
const place = z.strictObject({ tp: count, cp: count, dp: count, pp: count });
const groups = z.record(z.string(), z.array(z.array(count))).describe('ranks of each group, by field');
const byRegion = z.record(z.string(), bytes).describe('of the arena, by region');

const predicted = z.strictObject({
  step_time_ms: z.number(),
  tokens_per_s: z.number(),
  tokens_per_s_per_device: z.number(),
  tflops_per_device: z.number(),
  mfu: z.number().optional(),
  pipeline_bubble: z.number(),
  parts_ms: z.record(z.string(), z.number()).describe('where the time of a step goes'),
});

/** What is planned, without a device. */
export const PLANS = {
  plan: output('plan', 'mbridge plan', {
    layout,
    device,
    precision,
    parameters: count,
    trained_parameters: count,
    flops_per_step: z.number(),
    tokens_per_step: count,
    groups,
    ranks: z.array(
      z.strictObject({
        rank: count,
        coordinates: place,
        layers: z.array(z.tuple([count, count])).describe('[first, last] of each chunk'),
        embedding: z.boolean(),
        head: z.boolean(),
        parameters: count,
        trained_parameters: count,
        bytes: byRegion,
        total_bytes: bytes.describe('the sum of these'),
        runtime_bytes: bytes.describe('allowance for libraries and communicators beside the arena'),
        host_bytes: bytes.describe('host memory in which checkpoints are staged'),
        copy_bytes: bytes.describe('host memory of the copies from which a restart goes on'),
        flops_per_step: z.number(),
      }),
    ),
    gpu: z.strictObject({ name: z.string(), usable_bytes: bytes }).optional().describe('that it is planned for'),
    fits: z.boolean().optional(),
    needed_bytes: bytes.optional().describe('of the fullest GPU'),
    held_bytes: z.array(bytes).optional().describe('of the GPU of each rank'),
    predicted: predicted.optional(),
  }),
  tune: output('tune', 'mbridge tune', {
    name: z.string(),
    device: z.unknown(),
    ranks: count,
    considered: count,
    planned: count,
    search_s: z.number(),
    interrupted: z.boolean(),
    command: z.array(z.string()),
    settings: z.array(
      z.strictObject({
        ...{ tp: count, cp: count, dp: count, pp: count, vp: count, micro_batch_size: count },
        recompute_granularity: z.unknown(),
        recompute_modules: z.unknown().optional(),
        data_parallel_sharding_strategy: z.string(),
        planned_bytes: bytes,
        predicted,
        measured: z.strictObject({ step_time_ms: z.number(), tokens_per_s: z.number() }).nullable(),
        failed: z.string().optional(),
        flags: z.array(z.string()).describe('to be added to the command'),
      }),
    ),
  }),
  job_plan: output('job_plan', 'mbridge plan job.yaml: models that take turns', {
    world_size: count,
    device,
    models: z.array(
      z.strictObject({
        name: z.string(),
        rank_offset: count,
        layout,
        precision,
        trained: z.boolean(),
        parks: z.boolean().describe('whether some phase is without it'),
        ranks: z.array(z.strictObject({ rank: count, bytes: byRegion, total_bytes: bytes, state_bytes: bytes })),
      }),
    ),
    phases: z.array(z.strictObject({ name: z.string(), resident: z.array(z.string()) })),
    ranks: z.array(
      z.strictObject({
        rank: count,
        phase_bytes: z.array(bytes).describe('on the device, by phase'),
        peak_bytes: bytes,
        peak_phase: z.string(),
        runtime_bytes: bytes,
        host_bytes: bytes,
      }),
    ),
    needed_bytes: bytes.describe('of the fullest GPU; on a CPU of all processes'),
    memory_bytes: bytes.nullable(),
    fits: z.boolean().nullable(),
  }),
  grid: output('grid', 'mbridge grid', { shape: place, groups }),
} as const;

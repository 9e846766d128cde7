import { z } from 'zod';
import { bytes, config, count, device, isoTime, measured, output, seconds, sizes } from './shape.js';

const text = z.string();
const nothing = z.string().nullable();
const reason = nothing.describe('why not; null where nothing is wrong');
const from = nothing.describe('what led to it; null where there is none');

const run = {
  name: text,
  folder: text,
  state: z.enum(['running', 'done', 'stopped', 'failed', 'killed']),
  started: isoTime,
  device: text,
  ranks: count,
  layout: sizes,
  updates: count.describe('the last of which the metrics tell'),
  train_iters: count,
  loss: measured.describe('of that update'),
  tokens: count,
  wall_s: seconds.nullable(),
};
const compared = z.strictObject({
  ...run,
  step_time_ms: z.number().nullable().describe('median'),
  tokens_per_s_per_device: z.number().nullable().describe('median'),
});

const library = z.strictObject({
  name: text,
  needed_for: text,
  loaded: z.boolean(),
  version: nothing,
  path: nothing,
  reason,
});

/** Answers to questions: one object, or one a line. */
export const ANSWERS = {
  run: output('run', 'mbridge runs: a run', run),
  comparison: output('comparison', 'mbridge runs compare', {
    a: compared,
    b: compared,
    config: z
      .array(z.strictObject({ key: text, a: z.unknown().optional(), b: z.unknown().optional() }))
      .describe('keys that differ'),
    common_updates: count,
    first_difference: count.nullable().describe('update in which loss or norm are not the same number'),
    losses: z.array(z.strictObject({ step: count, a: measured, b: measured })),
  }),
  recipes: output('recipes', 'mbridge recipes', {
    recipes: z.array(z.strictObject({ name: text, description: text })),
  }),
  config: output('config', 'mbridge show-config', {
    config,
    origins: z
      .record(z.string(), z.strictObject({ origin: text, place: text }))
      .optional()
      .describe('with --explain, of each key that is no default'),
  }),
  config_keys: output('config_keys', 'mbridge config keys', {
    keys: z.array(
      z.strictObject({
        key: text,
        types: z.array(text).optional().describe('types of the section that have it, where it has several'),
        takes: text,
        values: z
          .array(z.union([z.string(), z.number(), z.boolean(), z.null()]))
          .optional()
          .describe('all that it takes, where these are few'),
        default: z.unknown(),
        description: text,
      }),
    ),
  }),
  dash: output('dash', 'mbridge dash: the page is served', { url: text }),
  doctor: output('doctor', 'mbridge doctor', {
    version: text,
    package: text,
    node: z.strictObject({ version: text, path: text, glibc: nothing }),
    cpu: z.strictObject({
      model: nothing,
      cores: count.nullable(),
      kernels: nothing,
      total_bytes: bytes,
      available_bytes: bytes,
      shm_free_bytes: bytes.nullable().describe('null where /dev/shm is not there'),
    }),
    native: z.strictObject({ path: text, from, ok: z.boolean(), reason }),
    cuda: z.strictObject({
      engine: text,
      from,
      loaded: z.boolean(),
      reason,
      kernel_driver: nothing,
      visible_gpus: count,
      description: z
        .strictObject({
          backend: text.optional(),
          abi: count.optional(),
          gemm_workspace_bytes_per_stream: bytes.optional(),
          runtime: text,
          architectures: text,
          driver: z.strictObject({ supports: nothing, needed: text, ok: z.boolean() }),
          devices: z.array(
            z.strictObject({
              index: count,
              name: text.optional(),
              capability: count.optional(),
              total_bytes: bytes.optional(),
              multiprocessors: count.optional(),
              peak_tflops: z.number().nullable().optional(),
              pci: text.optional(),
              error: nothing,
            }),
          ),
          device_error: nothing,
          peer_access: z.array(z.array(z.boolean())),
          libraries: z.strictObject({ cublaslt: library, cudnn: library, nccl: library }),
          library_directories: z.array(text),
        })
        .nullable(),
      devices: z.array(z.strictObject({ index: count, free_bytes: bytes.nullable(), attention: nothing, reason })),
    }),
    crash: nothing,
    environment: z.record(text, text),
    default: z.strictObject({ device, processes: count, precision: text }),
    usable: z.strictObject({ cpu: z.boolean(), cuda: z.boolean(), problems: z.array(text) }),
  }),
} as const;

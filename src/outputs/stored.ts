import { z } from 'zod';
import { bytes, count, isoTime, output } from './shape.js';

const text = z.string();
/** JSON has no NaN and no infinity: those are texts. */
const jsonNumber = z.union([z.number(), text]);
const record = z.record(text, z.unknown());

const state = z
  .strictObject({
    format: text,
    version: count,
    step: count,
    consumed_samples: count,
    model: record.describe("sizes, by Hugging Face's names"),
    head: text.optional(),
    adapters: z.unknown().optional(),
    precision: z.enum(['fp32', 'bf16_mixed', 'fp8_mixed']).nullable(),
    optimizer: z
      .strictObject({
        name: z.literal('adamw'),
        updates: jsonNumber,
        lr: jsonNumber,
        skipped_in_row: jsonNumber,
        scalars: z.array(jsonNumber),
      })
      .nullable(),
    rng: z.strictObject({ seed: z.number(), data_seed: z.number() }).nullable(),
    layout: z.record(text, z.union([z.number(), z.boolean()])).nullable(),
    versions: z.record(text, text),
    config: z.unknown().describe('as configs/schema.json describes it; null for imported weights'),
    lineage: text.optional(),
    data: z.unknown().optional(),
  })
  .describe('state.json of the checkpoint');

/** What checkpoints and token files hold. */
export const STORED = {
  checkpoint: output('checkpoint', 'mbridge checkpoint inspect, of one', {
    folder: text,
    state,
    parameters: count,
    tensors: count,
    files: count,
    bytes,
    optimizer_bytes: bytes.describe('of these, those of the optimizer'),
    dtypes: z.record(text, z.array(text)).describe('types of weight, exp_avg and exp_avg_sq'),
    saved: isoTime,
    run: text.nullable().describe('folder of the run that wrote it, where it lies in one'),
    loss: z.number().nullable().describe('of its update, by the metrics of that run'),
    list: z
      .array(z.strictObject({ name: text, dtype: text, shape: z.array(count), pieces: count }))
      .optional()
      .describe('with --tensors'),
  }),
  checkpoints: output('checkpoints', 'mbridge checkpoint inspect, of a folder of them', {
    folder: text,
    latest: text.nullable(),
    checkpoints: z.array(z.strictObject({ name: text, step: count, bytes, saved: isoTime })),
    unfinished: z.array(text),
  }),
  data: output('data', 'mbridge data inspect', {
    prefix: text,
    documents: count.describe('or conversations'),
    tokens: count,
    dtype: z.enum(['uint8', 'int8', 'int16', 'uint16', 'int32', 'int64']),
    range: z.tuple([count, count]).nullable().describe('lowest and highest id of those that were looked at'),
    looked: count,
    lengths: z.strictObject({ least: count, median: count, most: count }).nullable().describe('in tokens'),
    histogram: z.array(z.strictObject({ from: count, to: count, count })).describe('documents by tokens'),
    sidecar: record.nullable().describe('PREFIX.json'),
    samples: z.array(z.strictObject({ document: count, text })),
  }),
} as const;

import { z } from 'zod';
import { bytes, count, isoTime, measured, output, seconds } from './shape.js';

const cell = z.union([z.string(), z.boolean(), measured]);

/** What mbridge bench measures. */
export const BENCHES = {
  bench: output('bench', 'mbridge bench, but check', {
    bench: z.string(),
    command: z.string(),
    date: isoTime,
    device: z.string(),
    versions: z.record(z.string(), z.string()).describe('of what decides speed, by name'),
    ceilings: z
      .strictObject({
        copy_gb_per_s: z.number().describe('read and written'),
        copy_bytes: bytes,
        product_tflop_per_s: z.number(),
        product_size: count,
      })
      .optional()
      .describe('what the device itself does'),
    tables: z.array(
      z.strictObject({
        table: z.string().describe('which of the bench'),
        title: z.string(),
        rows: z.array(z.record(z.string().regex(/^[a-z0-9_]+$/), cell)).describe('units stand in the keys'),
      }),
    ),
    notes: z.array(z.string()).describe('how it was measured'),
  }),
  check: output('check', 'mbridge bench check: one check', {
    part: z.string(),
    name: z.string(),
    verdict: z.enum(['ok', 'failed', 'skipped']),
    measures: z.array(z.strictObject({ what: z.string(), value: measured, bound: z.number() })),
    wall_s: seconds,
    reason: z.string().nullable(),
  }),
} as const;

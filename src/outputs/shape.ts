import { z } from 'zod';
import { runConfigSchema } from '../config/schema.js';
import { OUTPUT_SCHEMA } from './line.js';

/** The schema of an output: `schema`, `type` and these keys, no others. */
export function output<const T extends string, S extends z.core.$ZodLooseShape>(
  type: T,
  description: string,
  shape: S,
) {
  return z
    .strictObject({ schema: z.literal(OUTPUT_SCHEMA), type: z.literal(type), ...shape })
    .meta({ description, title: type });
}

export const count = z.int().min(0);
export const bytes = z.number().min(0);
export const seconds = z.number();
/** A number that may not be finite, which is null. */
export const measured = z.number().nullable();
export const device = z.enum(['cpu', 'cuda']);
export const precision = z.enum(['bf16_mixed', 'fp8_mixed', 'fp32']);
export const isoTime = z.string().describe('ISO 8601');
/** Of processes: tp, cp, dp, pp, and what else the layout has. */
export const sizes = z.record(z.string(), z.number()).describe('by dimension: tp, cp, dp, pp');

/** A configuration as configs/schema.json describes it. */
export const config = z
  .record(z.string(), z.unknown())
  .refine((value) => runConfigSchema.safeParse(value).success, 'no configuration')
  .meta({ description: 'as configs/schema.json describes it' });

/** Why something failed. */
export const error = z
  .strictObject({
    code: z.string().describe('docs/errors.md lists them'),
    message: z.string().describe('what was found'),
    hint: z.string().optional().describe('what to do'),
    waits: z.string().optional().describe('who waits in which collective, by the flight records'),
    retryable: z.boolean().describe('whether the same command may do better: a process was lost, or hung'),
    rank: count.optional().describe('that failed first'),
    step: count.optional().describe('the update it was in, 0 before the first'),
    details: z.record(z.string(), z.unknown()).optional().describe('sizes, names and the like, by error'),
  })
  .meta({ description: 'why it failed' });

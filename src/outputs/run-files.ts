import { z } from 'zod';
import { config, count, device, isoTime, output, sizes } from './shape.js';

const text = z.string();
const argv = z.array(text).describe('the command line');

/** Files of a run's folder that are one object and nothing that is printed. */
export const RUN_FILES = {
  run_record: output('run_record', 'run.json: what ran, and how to go on with it', {
    name: text,
    started: isoTime.describe('ISO 8601, of the first session'),
    sessions: z.array(z.strictObject({ started: isoTime, argv })).describe('when it was begun and gone on with'),
    versions: z.strictObject({ mbridge: text, node: text, platform: text }),
    argv,
    device,
    nproc: count,
    layout: sizes,
    config,
    saves_in_run_folder: z.boolean().describe('whether checkpoint.save is in the folder because nothing else was said'),
    worker: text.nullable().describe("module of the program's own that the ranks run; null for the standard training"),
    options: z.unknown().optional().describe('what such a module was given'),
  }),
  rank_error: output('rank_error', 'rank-<r>/error.json: why a rank failed', {
    rank: count,
    time: isoTime,
    time_ms: z.number().describe('Unix milliseconds, which tell who failed first'),
    step: count.describe('the update it was in, 0 before the first'),
    code: text.describe('docs/errors.md lists them'),
    exit_code: count,
    message: text,
    hint: text.optional(),
    details: z.record(text, z.unknown()).optional().describe('sizes, names and the like, by error'),
    stack: text.optional().describe('of errors that are bugs'),
  }),
} as const;

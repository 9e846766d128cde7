import { z } from 'zod';
import { bytes, count, error, measured, output, seconds } from './shape.js';
import { evaluated } from './run-events.js';

/** How a run ended: the last line of every run, and result.json of its folder. */
const ending = {
  ok: z.boolean(),
  exit_code: count,
  run_dir: z.string().nullable(),
  wall_s: seconds.optional(),
  signal: z.string().optional().describe('that stopped it'),
  saved: z.string().nullable().optional().describe('where it was stopped: its last checkpoint'),
  error: error.optional(),
};

const memory = {
  arena_bytes: bytes.describe('all that was planned, of the rank that reports'),
  runtime_bytes: bytes.optional().describe('beside it on the GPU'),
  device_bytes: bytes.optional().describe('both'),
};

const done = { ok: z.literal(true) };
const result = <S extends z.core.$ZodLooseShape>(title: string, description: string, shape: S) =>
  output('result', description, shape).meta({ description, title });

/** The last line of a command that does something, and of every command that fails. */
export const RESULTS = z.union([
  result('failed', 'A command that failed, whatever it was', {
    ok: z.literal(false),
    exit_code: count,
    error,
  }),
  result('ended', 'A run that ended without numbers of its own: it failed, wrote texts, or had nothing left to do', {
    ...ending,
    steps: count.optional(),
  }),
  result('trained', 'A training run that came to its end, or was stopped', {
    ...ending,
    ...memory,
    steps: count.describe('its last update'),
    loss: measured.describe('of that update, in nats'),
    first_loss: measured.describe('of the first update of this process; null where none was run'),
    updates: count.describe('of this process'),
    tokens_trained: count.describe('positions of samples of these'),
    time_s: z
      .strictObject({ start: seconds, updates: seconds, data: seconds, evaluation: seconds, saves: seconds })
      .describe('where the time went; data is a part of updates'),
    peak_memory_bytes: bytes,
    planned_memory_bytes: bytes,
    validation: z
      .record(z.string(), z.strictObject({ step: count, ...evaluated }))
      .optional()
      .describe('the last evaluation of each set'),
    sources: z
      .array(z.strictObject({ path: z.string(), share: z.number(), samples: z.number(), epochs: z.number() }))
      .optional()
      .describe('what was read of each source of data'),
  }),
  result('evaluated', 'mbridge eval --data', { ...ending, ...memory, ...evaluated, tokens_per_s: z.number() }),
  result('answered', 'mbridge eval --choices', {
    ...ending,
    accuracy: measured.describe('part of the questions whose answer has the highest log-probability'),
    accuracy_norm: measured.describe('the highest by bytes'),
    questions: count,
    choices: count,
    eval_s: seconds,
  }),
  result('checkpoint_verified', 'mbridge checkpoint verify', {
    ...done,
    folder: z.string(),
    files: count,
    bytes,
    tensors: count,
  }),
  result('checkpoint_written', 'mbridge checkpoint reshard, import', { ...done, folder: z.string() }),
  result('checkpoints_pruned', 'mbridge checkpoint prune', {
    ...done,
    removed: z.array(z.string()),
    kept: z.array(z.string()),
    dry_run: z.boolean().describe('whether nothing was removed'),
  }),
  result('checkpoint_exported', 'mbridge checkpoint export', {
    ...done,
    folder: z.string(),
    tensors: count,
    bytes,
    files: z.array(z.string()).optional(),
    companions: z
      .string()
      .nullable()
      .optional()
      .describe("where config.json and the tokenizer came from; null where it was made from the model's sizes"),
  }),
  result('data_prepared', 'mbridge data prepare, import-hf', {
    ...done,
    prefix: z.string(),
    documents: count.describe('or conversations'),
    tokens: count,
    dtype: z.enum(['uint16', 'int32']),
    vocab_size: count,
    eod: count.nullable(),
    bad: count.describe('lines and rows that are no document'),
    empty: count.describe('texts without a character'),
    wall_s: seconds,
    read_bytes: bytes,
  }),
  result('data_verified', 'mbridge data verify', {
    ...done,
    prefix: z.string(),
    documents: count,
    tokens: count,
    sidecar: z.boolean().describe('whether PREFIX.json is there'),
  }),
  result('data_merged', 'mbridge data merge', { ...done, prefix: z.string(), documents: count, tokens: count }),
  result('checked', 'mbridge bench check, after a line for each check', {
    ok: z.boolean(),
    device: z.enum(['cpu', 'cuda']),
    ranks: count,
    passed: count,
    failed: count,
    skipped: count,
  }),
  result('file_written', 'mbridge report, plot', { ...done, file: z.string() }),
  result('job_written', 'mbridge launch with --file', {
    ...done,
    file: z.string(),
    command: z.string().describe('that starts the job'),
  }),
  result('job_text', 'mbridge launch', { ...done, text: z.string().describe('the script, or the manifest') }),
  result('job_submitted', 'mbridge launch slurm --submit', {
    ...done,
    submitted: z.string().describe('what sbatch said'),
  }),
]);

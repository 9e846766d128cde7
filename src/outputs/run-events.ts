import { z } from 'zod';
import { bytes, count, device, error, isoTime, measured, output, precision, seconds, sizes } from './shape.js';

const step = count.describe('update, from 1; 0 before the first');

/** What an evaluation came to. */
export const evaluated = {
  loss: measured.describe('mean over the counted tokens, in nats'),
  perplexity: measured,
  bits_per_byte: measured.optional().describe('absent where the bytes of the tokens are not known'),
  tokens: count.describe('counted tokens'),
  eval_s: seconds,
} as const;

/** Events of a run: lines of `--json`, and those with a step of metrics.ndjson too. */
export const RUN_EVENTS = {
  start: output('start', 'The first line of a training run: what runs, and where', {
    run_dir: z.string(),
    name: z.string(),
    parameters: count,
    trained_parameters: count,
    device,
    precision,
    ranks: count,
    layout: sizes,
    updates: count.describe('train.train_iters'),
    tokens_per_update: count,
    flops_per_update: z.number(),
    planned_memory_bytes: bytes.describe('of the fullest rank'),
    dataset: z.string().describe('dataset.type, or own: samples of the program'),
    save: z.string().nullable().describe('folder of its checkpoints'),
    checkpoint_bytes: bytes.optional(),
    copy_bytes: bytes.optional().describe('of all copies in memory, where there are some'),
  }),
  step: output('step', 'An update', {
    step,
    loss: measured.describe('mean over the unmasked tokens of the global batch, in nats'),
    grad_norm: measured.describe('before clipping'),
    lr: z.number(),
    tokens: count.describe('unmasked tokens of the global batch'),
    step_time_ms: z.number(),
    data_ms: z.number().optional().describe("in which rank 0's host read the samples of the update"),
    time: isoTime.optional(),
    elapsed_s: seconds.optional().describe('since the first update of this process began'),
    eta_s: seconds.optional().describe('until the last update, at the pace so far'),
    tokens_seen: count.optional().describe('of all updates, those before a resume too'),
    memory_bytes: bytes.optional().describe('in use on the rank that reports: of its GPU, or its process on a CPU'),
    tokens_per_s_per_device: z.number().optional().describe('a device is a GPU, or a process on a CPU'),
    tflops_per_device: z.number().optional().describe('TFLOP/s, by the formula of Megatron'),
    mfu: z.number().optional().describe('of the peak in bf16, also under fp8_mixed; absent where that is not known'),
    epoch: z.number().optional(),
    skipped: z.literal(true).optional().describe('the gradient was not finite, or no token counted'),
    totals: z.record(z.string(), measured).optional().describe("what a loss of a program's own adds up, by name"),
  }),
  evaluation: output('evaluation', 'A validation set, evaluated after an update', {
    set: z.string(),
    step,
    ...evaluated,
  }),
  sample: output('sample', 'What the model writes after an update; a line of samples.ndjson too', {
    step,
    prompt: z.string(),
    text: z.string(),
    tokens: z.array(count),
  }),
  loss_warning: output('loss_warning', 'A loss that jumped, or is above that of guessing', {
    step,
    kind: z.enum(['spike', 'above_guessing']),
    loss: measured,
    usual: measured.describe('the median of the updates before, or ln(vocabulary)'),
    text: z.string(),
  }),
  straggler: output('straggler', 'Ranks that are slow at their own work; none where that is over', {
    ranks: z.array(z.strictObject({ rank: count, ms: z.number(), median_ms: z.number() })),
    step: step.optional().describe('in rank-times.ndjson'),
  }),
  rank_times: output('rank_times', "A line of rank-times.ndjson: each rank's own work in an update", {
    step,
    ms: z.array(measured).describe('by rank, over the last 10 updates'),
    stages: z.array(count).optional().describe('pipeline stage of each rank, where there are several'),
  }),
  stall: output('stall', 'No rank has begun an update for long', {
    idle_s: seconds,
    steps: z.array(count).describe('update that each rank has begun, by rank'),
    done: z.array(count).describe('ranks that have ended'),
    text: z.string(),
  }),
  waiting: output('waiting', 'Ranks or nodes that have not come yet', {
    member: z.enum(['rank', 'node']),
    missing: z.array(count),
    of: count,
    wait_s: seconds,
    text: z.string(),
  }),
  warning: output('warning', 'Any other warning, as stderr has it', {
    text: z.string(),
    rank: count.optional().describe('of the log that it stands in; absent where the launcher says it'),
  }),
  saved: output('saved', 'A checkpoint is whole', { step, folder: z.string() }),
  restart: output('restart', 'The run failed, and begins again', {
    attempt: count.describe('from 1'),
    of: count.describe('--max-restarts'),
    wait_s: seconds,
    step: step.describe('update that it goes on from'),
    from: z.enum(['memory', 'checkpoint', 'start']).describe('what it goes on from'),
    exit_code: count.describe('that it would have ended with'),
    error,
  }),
  generation: output('generation', 'A prompt that mbridge generate continued', {
    prompt: count.describe('its number, from 0'),
    text: z.string(),
    tokens: z.array(count),
    logprobs: z.array(measured),
    stop: z.string().describe('why it ended: a stop token, the length or the context'),
    tokens_per_s: measured,
  }),
  question: output('question', 'A question of mbridge eval --choices', {
    question: count.describe('its number, from 1'),
    answer: count.describe('number of the right choice, from 0'),
    scores: z.array(measured).describe('log-probability of each choice'),
    best: count.describe('number of the choice of the highest score'),
    best_norm: count.describe('of the highest score by bytes'),
  }),
  exported: output('exported', 'The Hugging Face folder of mbridge finetune, after its result', {
    folder: z.string(),
    tensors: count,
    bytes,
  }),
} as const;

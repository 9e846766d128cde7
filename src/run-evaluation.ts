import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { takeEarlySignals } from './base/early-signals.js';
import { MbridgeError } from './base/errors.js';
import { compiledFile } from './base/package-root.js';
import { checkConfig } from './config/check-config.js';
import { lengthStep } from './config/fp8.js';
import type { RunConfig } from './config/schema.js';
import { tokenizeChoices } from './data/tokenize-choices.js';
import { MOST_ROWS } from './model/losses/row-cross-entropy.js';
import { start, type RunDistributedOptions } from './run-distributed.js';

type Options = Omit<RunDistributedOptions, 'config' | 'worker' | 'options'>;

/** Micro-batches of a batch for each pipeline stage: enough to keep the stages busy. */
const BATCHES_PER_STAGE = 4;

/**
 * `mbridge eval --data` as a function: the loss of the model of `checkpoint.pretrained_checkpoint` on section `dataset`,
 * forward passes alone, on `nproc` processes. Resolves and throws as runDistributed.
 */
export function evaluate(config: RunConfig, options: Options = {}): Promise<number> {
  const fit = (checked: RunConfig, ranks: number): RunConfig => {
    const { replicas, stages } = sizesOf(checked, ranks);
    return withBatch(checked, checked.train.micro_batch_size * replicas * stages * BATCHES_PER_STAGE);
  };
  const worker = workerUrl('train/evaluate-worker.js');
  return start({ ...options, config, worker }, { data: true, trainable: false }, fit);
}

/** Multiple-choice questions. */
export interface ChoicesSource {
  /** File of `{"context": ..., "choices": [...], "answer": index}` lines. */
  readonly path: string;
  /** Stands between a context and its choice; nothing by default. */
  readonly delimiter?: string;
}

/**
 * `mbridge eval --choices` as a function: the log-probability of every choice under the model of
 * `checkpoint.pretrained_checkpoint`. `model.seq_length` is the most that context and choice may have.
 * @throws MbridgeError as runDistributed, and exit 7 naming the line that is no question, or is too long
 */
export async function evaluateChoices(
  config: RunConfig,
  { path, delimiter = '' }: ChoicesSource,
  options: Options = {},
): Promise<number> {
  takeEarlySignals();
  const checked = checkConfig(config);
  const { vocab_size: vocabSize, seq_length: bound } = checked.model;
  const { openConfigured } = await import('./data/tokenizer/open-tokenizer.js');
  const tokenizer = openConfigured(checked.tokenizer, vocabSize);
  const rows = [...tokenizeChoices(path, { tokenizer, delimiter, longest: bound + 1 })];
  const longest = rows.reduce((most, { ids }) => Math.max(most, ids.length), 0);
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-choices-'));
  const remove = (): void => {
    rmSync(folder, { recursive: true, force: true });
  };
  process.on('exit', remove); // a worker of torchrun leaves that way
  try {
    const file = join(folder, 'rows.jsonl');
    writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const worker = workerUrl('train/choices-worker.js');
    const given = { rows: file, each: options.json ?? false };
    return await start(
      { ...options, config: checked, worker, options: given },
      { data: false, trainable: false },
      (settled, ranks) => withRows(settled, ranks, longest - 1),
    );
  } finally {
    process.off('exit', remove);
    remove();
  }
}

/** Rows are padded to a multiple of {@link lengthStep}, each a micro-batch of its own. */
function withRows(config: RunConfig, ranks: number, longest: number): RunConfig {
  const { replicas, stages } = sizesOf(config, ranks);
  const most = Math.floor(MOST_ROWS / replicas);
  // A multiple of the stages, as interleaved ones need it.
  const microBatches = Math.floor(Math.min(most, stages * BATCHES_PER_STAGE) / stages) * stages;
  if (microBatches < 1) {
    const found = `${replicas} replicas of ${stages} stages have more than ${MOST_ROWS} rows at a time`;
    throw new MbridgeError('config', 'MB_CHOICES_REPLICAS', found, { hint: 'start fewer processes (--nproc)' });
  }
  const { model, train } = config;
  const step = lengthStep(config);
  const seqLength = Math.min(Math.ceil(longest / step) * step, model.seq_length);
  const divides = seqLength % model.tensor_model_parallel_size === 0;
  return withBatch(
    {
      ...config,
      model: { ...model, seq_length: seqLength, sequence_parallel: model.sequence_parallel && divides },
      train: { ...train, micro_batch_size: 1 },
    },
    replicas * microBatches,
  );
}

function withBatch(config: RunConfig, samples: number): RunConfig {
  return { ...config, train: { ...config.train, global_batch_size: samples } };
}

/** Of a layout that may not fit; that is said later. */
function sizesOf({ model }: RunConfig, ranks: number): { replicas: number; stages: number } {
  const { tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp, context_parallel_size: cp } = model;
  return { replicas: Math.max(1, Math.floor(ranks / (tp * pp * cp))), stages: pp };
}

function workerUrl(file: string): string {
  return pathToFileURL(compiledFile(file)).href;
}

import { existsSync } from 'node:fs';
import { basename, join, resolve as absolute } from 'node:path';
import { MbridgeError } from './base/errors.js';
import { configOfModel } from './checkpoint/run/model-config.js';
import { lengthStep } from './config/fp8.js';
import { resolve, type ConfigSources, type Resolution } from './config/resolve.js';
import type { ConfigInput, RunConfig } from './config/schema.js';
import { detectStarter, firstSet, refuseSeveralLaunchers, variablesOf } from './job/shared/starter.js';
import { outputLine } from './outputs/line.js';
import { runDistributed, type RunDistributedOptions } from './run-distributed.js';

/** A sample is no longer than this, unless model.seq_length says so. */
const LONGEST = 4096;
/** Learning rates of a whole model, and of adapters, which begin from nothing. */
const LR = 1e-5;
const ADAPTER_LR = 1e-4;
/** More than any run has: what stands until the number of conversations is known. */
const UNKNOWN_ITERS = 1_000_000_000;

export interface FinetuneOptions extends Pick<RunDistributedOptions, 'nproc' | 'json'> {
  /** A Hugging Face folder, a checkpoint, or a folder of checkpoints. */
  readonly model: string;
  /** Conversations: a file, or the prefix of its token files. */
  readonly data: string;
  /** Hugging Face folder to make at the end; checkpoints are saved in `OUTPUT-checkpoints` meanwhile. */
  readonly output?: string | undefined;
  /** Passes over the data; 1 by default. */
  readonly epochs?: number | undefined;
  /** Folder of the tokenizer, where the model has none of its own. */
  readonly tokenizer?: string | undefined;
  readonly flags?: ConfigSources['flags'];
  readonly overrides?: ConfigSources['overrides'];
}

/**
 * `mbridge finetune` as a function: trains a model on conversations, and writes it as a Hugging Face folder. A run that
 * was stopped goes on when it is called again.
 * @returns the exit code
 * @throws MbridgeError exit 2, 3 or 7 for what is wrong with the request, the model or the data
 */
export async function finetune(options: FinetuneOptions): Promise<number> {
  const { output, nproc, json = false } = options;
  if (nproc !== undefined || detectStarter(process.env) === undefined) refuseSeveralLaunchers(process.env);
  const starter = nproc === undefined ? detectStarter(process.env) : undefined;
  const rank = starter === undefined ? '0' : firstSet(process.env, variablesOf(starter).rank).value;
  if (output !== undefined) {
    const { requireEmpty } = await import('./checkpoint/hf/new-folder.js');
    await requireEmpty(output);
  }
  const { config, origins } = await resolveFinetune(options, { make: starter === undefined });
  if (config.checkpoint.save === null && output !== undefined) {
    const found = 'checkpoint.save=null beside --output: there would be nothing to make it of';
    throw new MbridgeError('usage', 'MB_USAGE', found, { hint: 'leave one of them out' });
  }
  if (config.checkpoint.save === null && rank === '0') {
    process.stderr.write('the trained weights are not kept: give --output DIR, or checkpoint.save=DIR\n');
  }
  const name = `finetune-${basename(absolute(options.model))}`;
  const code = await runDistributed({ config, name, origins, nproc, json });
  const { save } = config.checkpoint;
  if (code === 0 && output !== undefined && save !== null && rank === '0') {
    await writeModel(save, config, options, output);
  }
  return code;
}

/** The configuration, with what follows from the number and length of the conversations. */
async function resolveFinetune(options: FinetuneOptions, how: { readonly make: boolean }): Promise<Resolution> {
  const { flags = [], overrides = [], epochs = 1 } = options;
  const base = await defaultsOf(options);
  const withValues = (values: ConfigInput): Resolution => {
    const config = {
      ...base,
      ...values,
      model: { ...base.model, ...values.model },
      train: { ...base.train, ...values.train },
      optimizer: { ...base.optimizer, ...values.optimizer },
    };
    return resolve({ recipe: { name: basename(absolute(options.model)), config }, flags, overrides });
  };
  const first = withValues({ train: { train_iters: UNKNOWN_ITERS } });
  const given = (path: string): boolean => ['flag', 'override'].includes(first.origins.get(path)?.origin ?? '');
  if (options.epochs !== undefined && given('train.train_iters')) {
    throw new MbridgeError('usage', 'MB_USAGE', 'both --epochs and train.train_iters', { hint: 'give one of them' });
  }
  const { dataset, model, train } = first.config;
  if (dataset.type !== 'chat') {
    const found = `dataset.type is ${dataset.type}; finetune reads conversations`;
    throw new MbridgeError('config', 'MB_DATA_TYPE', found, { hint: 'leave it out, or use mbridge pretrain' });
  }
  const { conversationPacks } = await import('./data/indexed/chat-samples.js');
  const { chatLengths } = await import('./data/prepare/chat-report.js');
  const { chatPrefix } = await import('./data/prepare/prepare-run.js');
  const lengths = chatLengths(await chatPrefix(first.config, dataset, how));
  const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
  // A sample of n + 1 tokens has n that are predicted.
  const step = lengthStep(first.config);
  const fitting = Math.max(step, Math.ceil((longest - 1) / step) * step);
  const seqLength = given('model.seq_length')
    ? model.seq_length
    : Math.min(fitting, LONGEST, model.max_position_embeddings);
  const { too_long: tooLong, packing } = dataset;
  const samples = conversationPacks(lengths, { seqLength, tooLong, packing }).starts.length - 1;
  const passes = Math.max(1, Math.ceil((samples * epochs) / train.global_batch_size));
  const iters = given('train.train_iters') ? train.train_iters : passes;
  // The rate reaches its end after the last update: of a run of one update it would be 0.
  const scheduler = { ...base.scheduler, lr_decay_iters: iters + 1 };
  const optimizer = first.config.peft.type === 'none' ? {} : { lr: ADAPTER_LR };
  return withValues({ model: { seq_length: seqLength }, train: { train_iters: iters }, scheduler, optimizer });
}

async function defaultsOf({ model, data, output, tokenizer }: FinetuneOptions): Promise<ConfigInput> {
  const found = await configOfModel(model);
  const own = found.tokenizer?.type === 'huggingface' ? found.tokenizer : undefined;
  const used = tokenizer === undefined ? own : ({ type: 'huggingface', path: tokenizer } as const);
  if (used === undefined) {
    throw new MbridgeError('config', 'MB_CHAT_TOKENIZER', `${model} has no tokenizer that knows conversations`, {
      hint: 'name a Hugging Face folder with tokenizer.json and a chat template: --tokenizer FOLDER',
    });
  }
  const saves = output === undefined ? undefined : `${absolute(output)}-checkpoints`;
  return {
    ...found,
    tokenizer: used,
    dataset: { type: 'chat', path: data },
    train: { global_batch_size: 8 },
    optimizer: { lr: LR, weight_decay: 0 },
    scheduler: { lr_decay_style: 'cosine', lr_warmup_fraction: 0.03 },
    checkpoint: { ...found.checkpoint, ...(saves === undefined ? {} : { save: saves, load: saves }) },
  };
}

/** The weights of the last update, the tokenizer that they were trained with, and what else came with the model. */
async function writeModel(
  saves: string,
  config: RunConfig,
  { model, json = false }: FinetuneOptions,
  output: string,
): Promise<void> {
  const { requireCheckpoint } = await import('./checkpoint/format/checkpoint-root.js');
  const { Checkpoint } = await import('./checkpoint/format/checkpoint.js');
  const { exportHf } = await import('./checkpoint/hf/hf-export.js');
  const checkpoint = await Checkpoint.open(await requireCheckpoint(saves, (text) => process.stderr.write(`${text}\n`)));
  try {
    const { step } = checkpoint.state;
    if (step < config.train.train_iters) {
      process.stderr.write(`${output} is not written: update ${step} of ${config.train.train_iters}; go on first\n`);
      return;
    }
    const tokenizerPath = config.tokenizer.type === 'huggingface' ? config.tokenizer.path : undefined;
    const hfPath = existsSync(join(model, 'config.json')) ? model : undefined;
    const { tensors, bytes } = await exportHf(checkpoint, output, { tokenizerPath, hfPath });
    process.stdout.write(
      json ? outputLine('exported', { folder: output, tensors, bytes }) : `${output}: ${tensors} tensors\n`,
    );
  } finally {
    await checkpoint.close();
  }
}

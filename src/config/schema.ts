import { z } from 'zod';
import { ADAPTED_MODULES, FUSED_MODULES } from '../families/adapters.js';
import { CHANGEABLE_KEYS } from '../families/compare.js';
import type { RunConfig } from './config-types.js';
import { modelSchema } from './schema-model.js';

/**
 * The configuration of a run: the single source of types, defaults, help texts and configs/schema.json. Keys are the
 * snake_case ones of the YAML, in Megatron-Bridge's sections. A value that may be unset is null, never absent.
 *
 * Values that depend on others (sizes from a Hugging Face folder, `sequence_parallel`, `lr_decay_iters`, ...) are filled
 * in by resolve.ts before this schema is applied.
 */
const count = z.int().min(1);
const optionalCount = count.nullable().default(null);
const optionalPath = z.string().min(1).nullable().default(null);
const notNegative = z.number().min(0);

const trainSchema = z.strictObject({
  train_iters: count.describe('number of optimizer updates'),
  global_batch_size: count.max(1_000_000).default(32).describe('samples an update, over all replicas'),
  micro_batch_size: count.default(1).describe('samples a forward pass of one replica'),
  exit_interval: optionalCount.describe('save and end when the update number is a multiple of this'),
  exit_duration_in_mins: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe('save and end after this many minutes'),
  max_skipped_in_a_row: count
    .default(3)
    .describe('end the run after this many updates in a row with a non-finite norm'),
});

const stateDtype = z.enum(['fp32', 'bf16']).default('fp32');

const optimizerSchema = z.strictObject({
  lr: z.number().positive().default(3e-4).describe('peak learning rate'),
  min_lr: notNegative.default(0).describe('learning rate that holds after the decay'),
  adam_beta1: notNegative.lt(1).default(0.9).describe('decay of the first moment'),
  adam_beta2: notNegative.lt(1).default(0.95).describe('decay of the second moment'),
  adam_eps: z.number().positive().default(1e-8).describe('added outside the square root'),
  weight_decay: notNegative.default(0.1).describe('decoupled; on parameters of two or more dimensions'),
  clip_grad: notNegative.default(1).describe('largest global gradient norm; 0 does not clip'),
  main_params_dtype: stateDtype.describe(
    'in what the parameters that updates are added to are kept; bf16, rounded stochastically, are the weights themselves on a GPU: 4 bytes a parameter less',
  ),
  exp_avg_dtype: stateDtype.describe(
    'in what the first moment is kept; bf16, rounded stochastically, takes 2 bytes less',
  ),
  exp_avg_sq_dtype: stateDtype.describe(
    'in what the second moment is kept; bf16, rounded stochastically, takes 2 bytes less',
  ),
  use_distributed_optimizer: z.boolean().default(true).describe('shard optimizer state over the replicas'),
  frozen_parameters: z
    .array(z.string().min(1))
    .default([])
    .describe('names of parameters that are not trained; * stands for any letters, as in model.layers.0.*'),
});

const peftSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('none').describe('all of the model is trained') }),
  z.strictObject({
    type: z.literal('lora').describe('low-rank adapters are trained, and the rest of the model is frozen'),
    dim: count.default(16).describe("rank of the adapters (peft's r)"),
    alpha: z
      .number()
      .positive()
      .default(32)
      .describe("what an adapter adds is multiplied by alpha / dim (peft's lora_alpha)"),
    target_modules: z
      .array(z.enum([...ADAPTED_MODULES, ...Object.keys(FUSED_MODULES)]))
      .min(1)
      .default([...ADAPTED_MODULES])
      .describe("products that have an adapter, by Hugging Face's names, or Megatron's of the fused ones"),
    dropout: z.literal(0).default(0).describe('always 0: dropout is not built'),
    adapter: optionalPath.describe('folder of an adapter, as peft saves it, to begin with; new ones by default'),
  }),
]);

const schedulerSchema = z.strictObject({
  lr_decay_style: z.enum(['constant', 'linear', 'cosine', 'WSD']).default('cosine').describe('shape after warm-up'),
  lr_warmup_iters: z.int().min(0).default(0).describe('updates of linear warm-up; default 0, or by lr_warmup_fraction'),
  lr_warmup_fraction: notNegative
    .lt(1)
    .nullable()
    .default(null)
    .describe('warm-up as a part of lr_decay_iters; lr_warmup_iters wins where it is set too'),
  lr_decay_iters: count.describe('update at which min_lr is reached; default train.train_iters'),
  lr_wsd_decay_iters: optionalCount.describe('length of the final decay of WSD'),
});

const ddpSchema = z.strictObject({
  overlap_grad_reduce: z.boolean().default(true).describe('reduce gradient buckets while backward runs'),
  overlap_param_gather: z.boolean().default(true).describe('gather parameter buckets while forward runs'),
  grad_reduce_in_fp32: z
    .boolean()
    .default(true)
    .describe('always true: grads_dtype says what gradients are reduced in'),
  grads_dtype: stateDtype.describe(
    'in what gradients of the matrices of layers, and of an untied output, are kept and reduced; bf16 takes 2 bytes a parameter less, and every micro-batch rounds',
  ),
  bucket_size: optionalCount.describe('elements of a gradient bucket; null leaves it to the planner'),
  data_parallel_sharding_strategy: z
    .enum(['no_shard', 'optim', 'optim_grads'])
    .default('optim')
    .describe('what is sharded over the replicas: nothing, optimizer state, or gradients too'),
});

const seed = z
  .int()
  .min(0)
  .max(2 ** 32 - 1);
const shuffle = z.boolean().default(true).describe('false reads the samples in file order');
const dataSeed = seed.default(1234).describe('seed of the sample order, or of the mock tokens');

const documents = {
  document_attention: z
    .boolean()
    .default(false)
    .describe('attention and positions stay inside a document of a sample that holds several'),
  mask_document_starts: z
    .boolean()
    .default(false)
    .describe('the first token of a document is not predicted from the last one of the document before'),
};

const datasetSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('mock'), seed: dataSeed }),
  z.strictObject({
    type: z.literal('indexed').describe("token files in Megatron's format, PREFIX.bin and PREFIX.idx"),
    path: optionalPath.describe('the PREFIX of one pair; or set blend'),
    blend: z
      .array(z.strictObject({ path: z.string().min(1), weight: z.number().positive() }))
      .min(1)
      .nullable()
      .default(null)
      .describe('several pairs: the PREFIX of each, and a weight that says how many of the samples come from it'),
    split: z
      .string()
      .default('1,0,0')
      .describe('parts of the documents for training, validation and test, such as 969,30,1; of any sum'),
    shuffle: z.boolean().default(true).describe('false reads documents and samples in file order'),
    seed: dataSeed,
    ...documents,
  }),
  z.strictObject({
    type: z.literal('jsonl'),
    path: z.string().min(1).describe('file of {"input_ids": [seq_length + 1 tokens]} or {"text": ...} lines'),
    shuffle,
    seed: dataSeed,
    ...documents,
  }),
  z.strictObject({
    type: z.literal('text'),
    path: z
      .string()
      .min(1)
      .describe('text file, or builtin:moby-dick (a public-domain novel that is installed with us)'),
    shuffle,
    seed: dataSeed,
    ...documents,
  }),
  z.strictObject({
    type: z
      .literal('chat')
      .describe("conversations, by the chat template of section tokenizer; the assistant's tokens count"),
    path: z
      .string()
      .min(1)
      .describe(
        'file of {"messages": [...]} or {"prompt": ..., "completion": ...} lines, or the PREFIX of its token files',
      ),
    too_long: z
      .enum(['truncate', 'drop', 'error'])
      .default('truncate')
      .describe('what becomes of conversations of more than seq_length + 1 tokens'),
    packing: z
      .boolean()
      .default(false)
      .describe('several conversations in a sample, each seen by itself; false pads each to a sample'),
    shuffle,
    seed: dataSeed,
  }),
]);

const tokenizerSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('byte').describe('one token a byte; vocabulary of 256') }),
  z.strictObject({
    type: z.literal('huggingface'),
    path: z.string().min(1).describe('folder with tokenizer.json'),
  }),
]);

const validationSchema = z.strictObject({
  eval_interval: optionalCount.describe(
    'updates between evaluations; the last update is always followed by one; null never evaluates',
  ),
  eval_iters: optionalCount.describe(
    'batches of train.global_batch_size samples that an evaluation reads of each set; null, without eval_samples too, reads all of it',
  ),
  eval_samples: optionalCount.describe('samples that an evaluation reads of each set, instead of eval_iters'),
  eval_at_start: z.boolean().default(false).describe('evaluate before the first update too'),
  sets: z
    .record(z.string().regex(/^[\w.-]+$/), datasetSchema)
    .default({})
    .describe('what is evaluated, by name: each as section dataset, `valid: {type: text, path: valid.txt}`'),
});

const checkpointSchema = z.strictObject({
  save: optionalPath.describe(
    'folder to save checkpoints in; where nothing is said, mbridge pretrain saves in the run folder; null saves nothing',
  ),
  save_interval: optionalCount.describe(
    'updates between saves; null saves at the end only; in the run folder a tenth of the run by default, at least 100',
  ),
  non_persistent_save_interval: optionalCount.describe(
    'updates between copies of the state in memory, from which --max-restarts goes on; null makes none',
  ),
  load: optionalPath.describe('folder to resume from; an empty or absent one starts fresh'),
  keep_last: optionalCount.describe(
    'how many newest checkpoints to keep; null keeps all; in the run folder 2 by default',
  ),
  keep_every: optionalCount.describe('also keep checkpoints whose update number is a multiple of this'),
  overwrite: z
    .boolean()
    .default(false)
    .describe('replace and remove checkpoints in `save` that another run wrote; else they are refused'),
  allow_changed_data: z
    .boolean()
    .default(false)
    .describe('resume although the data is not what it was when the checkpoint was saved'),
  async_save: z.boolean().default(true).describe('write while training goes on'),
  pretrained_checkpoint: optionalPath.describe('Hugging Face folder (safetensors) or checkpoint to take weights from'),
  allow_model_changes: z
    .array(z.enum(CHANGEABLE_KEYS))
    .default([])
    .describe('model keys in which loaded weights may be of another model, such as [rope_theta]'),
});

const loggerSchema = z.strictObject({
  log_interval: count.default(1).describe('updates between step lines; the last is always shown'),
  log_dir: optionalPath.describe('run folder; default runs/<recipe>-<time>'),
  tensorboard_dir: optionalPath.describe("folder of TensorBoard's event files; default the run's own"),
  trace_steps: z
    .array(count)
    .nullable()
    .default(null)
    .describe('[first, last]: updates of which each rank writes a trace, rank-<r>/trace.json; null writes none'),
  prometheus_port: z
    .int()
    .min(1)
    .max(65_535)
    .nullable()
    .default(null)
    .describe('port of /metrics for Prometheus, served by the launcher, or by rank 0; null serves none'),
  prometheus_host: z
    .string()
    .regex(/^[\w.:-]+$/, 'expected an address or a host name')
    .default('127.0.0.1')
    .describe('address that /metrics is served on; others than 127.0.0.1 show it to whoever reaches it'),
  sample_interval: optionalCount.describe('updates between samples of what the model writes; null writes none'),
  sample_prompts: z
    .array(z.string())
    .min(1)
    .max(64)
    .default([''])
    .describe('texts that samples go on with; an empty one begins a document'),
  sample_tokens: count.default(64).describe('tokens of a sample; with its prompt no more than model.seq_length'),
  sample_temperature: notNegative.default(0).describe('of samples; 0 takes the most probable token'),
});

const distSchema = z.strictObject({
  device: z.enum(['auto', 'cuda', 'cpu']).default('auto').describe('auto takes the GPUs where there are any'),
  use_decentralized_pg: z.literal(true).default(true).describe('always true: process groups are always explicit'),
  use_gloo_process_groups: z
    .literal(false)
    .default(false)
    .describe('always false: NCCL, or shared memory and TCP on the CPU'),
  timeout_s: z
    .number()
    .positive()
    .max(1_000_000)
    .default(600)
    .describe('seconds after which a collective counts as hung'),
  peer_memory: z
    .boolean()
    .default(true)
    .describe('GPUs of one host read and write the memory of their groups directly; false: everything through NCCL'),
  // CUDA's multi-process service takes some 50 processes a GPU, and without --nproc all of them are started.
  ranks_per_gpu: z
    .int()
    .min(1)
    .max(64)
    .default(1)
    .describe('processes that share each GPU, to try a layout on fewer GPUs than it is for'),
  check_collectives: z
    .boolean()
    .default(false)
    .describe('before each collective compare its op, dtype and size between its members: slow, for debugging'),
  check_placement: z.boolean().default(false).describe('compare hashes of replicated tensors over their groups'),
});

const rngSchema = z.strictObject({
  seed: seed.default(1234).describe('seed of the weights; the same weights on every layout'),
});

export const runConfigSchema = z.strictObject({
  model: modelSchema.describe('shape of the model and of its parallelism'),
  train: trainSchema.describe('length and batch'),
  optimizer: optimizerSchema.prefault({}).describe('AdamW'),
  peft: peftSchema.prefault({ type: 'none' }).describe('fine-tuning of few parameters'),
  scheduler: schedulerSchema.describe('learning rate over the updates'),
  ddp: ddpSchema.prefault({}).describe('data parallelism'),
  mixed_precision: z
    .enum(['auto', 'bf16_mixed', 'fp8_mixed', 'fp32'])
    .default('auto')
    .describe(
      "auto is bf16_mixed on GPUs and fp32 on the CPU; fp8_mixed is bf16_mixed with the layers' products in e4m3",
    ),
  dataset: datasetSchema.prefault({ type: 'mock' }).describe('where samples come from'),
  validation: validationSchema.prefault({}).describe('loss on other data, as training goes on'),
  tokenizer: tokenizerSchema.prefault({ type: 'byte' }).describe('text to tokens'),
  checkpoint: checkpointSchema.prefault({}).describe('saving and loading'),
  logger: loggerSchema.prefault({}).describe('output'),
  dist: distSchema.prefault({}).describe('processes, devices and groups'),
  rng: rngSchema.prefault({}).describe('randomness'),
});

/** Whether `name` is one of our sections of keys. */
export function isSection(name: string): boolean {
  return Object.hasOwn(runConfigSchema.shape, name) && name !== 'mixed_precision';
}

export type { DatasetConfig, ModelConfig, RunConfig, TokenizerConfig } from './config-types.js';

type Loose<T> = T extends object ? { [K in keyof T]?: T[K] } : T;

/** What a recipe or a caller writes: any part of a configuration. */
export type ConfigInput = { [K in keyof RunConfig]?: Loose<RunConfig[K]> };

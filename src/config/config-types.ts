// Written by scripts/config-types.mjs from configs/schema.json.
import type { ModelConfig } from './model-config.js';
export type { ModelConfig };

/** A resolved configuration: every key present. */
export interface RunConfig {
  /** shape of the model and of its parallelism. */
  model: ModelConfig;
  /** length and batch. */
  train: TrainConfig;
  /** AdamW. */
  optimizer: OptimizerConfig;
  /** fine-tuning of few parameters. */
  peft: PeftConfig;
  /** learning rate over the updates. */
  scheduler: SchedulerConfig;
  /** data parallelism. */
  ddp: DdpConfig;
  /** auto is bf16_mixed on GPUs and fp32 on the CPU; fp8_mixed is bf16_mixed with the layers' products in e4m3. Default: "auto". */
  mixed_precision: 'auto' | 'bf16_mixed' | 'fp8_mixed' | 'fp32';
  /** where samples come from. */
  dataset: DatasetConfig;
  /** loss on other data, as training goes on. */
  validation: ValidationConfig;
  /** text to tokens. */
  tokenizer: TokenizerConfig;
  /** saving and loading. */
  checkpoint: CheckpointConfig;
  /** output. */
  logger: LoggerConfig;
  /** processes, devices and groups. */
  dist: DistConfig;
  /** randomness. */
  rng: RngConfig;
}

/** length and batch. */
export interface TrainConfig {
  /** number of optimizer updates. */
  train_iters: number;
  /** samples an update, over all replicas. Default: 32. */
  global_batch_size: number;
  /** samples a forward pass of one replica. Default: 1. */
  micro_batch_size: number;
  /** save and end when the update number is a multiple of this. Default: null. */
  exit_interval: number | null;
  /** save and end after this many minutes. Default: null. */
  exit_duration_in_mins: number | null;
  /** end the run after this many updates in a row with a non-finite norm. Default: 3. */
  max_skipped_in_a_row: number;
}

/** AdamW. */
export interface OptimizerConfig {
  /** peak learning rate. Default: 0.0003. */
  lr: number;
  /** learning rate that holds after the decay. Default: 0. */
  min_lr: number;
  /** decay of the first moment. Default: 0.9. */
  adam_beta1: number;
  /** decay of the second moment. Default: 0.95. */
  adam_beta2: number;
  /** added outside the square root. Default: 1e-8. */
  adam_eps: number;
  /** decoupled; on parameters of two or more dimensions. Default: 0.1. */
  weight_decay: number;
  /** largest global gradient norm; 0 does not clip. Default: 1. */
  clip_grad: number;
  /** in what the parameters that updates are added to are kept; bf16, rounded stochastically, are the weights themselves on a GPU: 4 bytes a parameter less. Default: "fp32". */
  main_params_dtype: 'fp32' | 'bf16';
  /** in what the first moment is kept; bf16, rounded stochastically, takes 2 bytes less. Default: "fp32". */
  exp_avg_dtype: 'fp32' | 'bf16';
  /** in what the second moment is kept; bf16, rounded stochastically, takes 2 bytes less. Default: "fp32". */
  exp_avg_sq_dtype: 'fp32' | 'bf16';
  /** shard optimizer state over the replicas. Default: true. */
  use_distributed_optimizer: boolean;
  /** names of parameters that are not trained; * stands for any letters, as in model.layers.0.*. */
  frozen_parameters: string[];
}

/** fine-tuning of few parameters. */
export type PeftConfig = NonePeftConfig | LoraPeftConfig;

export interface NonePeftConfig {
  /** all of the model is trained. */
  type: 'none';
}

export interface LoraPeftConfig {
  /** low-rank adapters are trained, and the rest of the model is frozen. */
  type: 'lora';
  /** rank of the adapters (peft's r). Default: 16. */
  dim: number;
  /** what an adapter adds is multiplied by alpha / dim (peft's lora_alpha). Default: 32. */
  alpha: number;
  /** products that have an adapter, by Hugging Face's names, or Megatron's of the fused ones. */
  target_modules: string[];
  /** always 0: dropout is not built. Default: 0. */
  dropout: 0;
  /** folder of an adapter, as peft saves it, to begin with; new ones by default. Default: null. */
  adapter: string | null;
}

/** learning rate over the updates. */
export interface SchedulerConfig {
  /** shape after warm-up. Default: "cosine". */
  lr_decay_style: 'constant' | 'linear' | 'cosine' | 'WSD';
  /** updates of linear warm-up; default 0, or by lr_warmup_fraction. Default: 0. */
  lr_warmup_iters: number;
  /** warm-up as a part of lr_decay_iters; lr_warmup_iters wins where it is set too. Default: null. */
  lr_warmup_fraction: number | null;
  /** update at which min_lr is reached; default train.train_iters. */
  lr_decay_iters: number;
  /** length of the final decay of WSD. Default: null. */
  lr_wsd_decay_iters: number | null;
}

/** data parallelism. */
export interface DdpConfig {
  /** reduce gradient buckets while backward runs. Default: true. */
  overlap_grad_reduce: boolean;
  /** gather parameter buckets while forward runs. Default: true. */
  overlap_param_gather: boolean;
  /** always true: grads_dtype says what gradients are reduced in. Default: true. */
  grad_reduce_in_fp32: boolean;
  /** in what gradients of the matrices of layers, and of an untied output, are kept and reduced; bf16 takes 2 bytes a parameter less, and every micro-batch rounds. Default: "fp32". */
  grads_dtype: 'fp32' | 'bf16';
  /** elements of a gradient bucket; null leaves it to the planner. Default: null. */
  bucket_size: number | null;
  /** what is sharded over the replicas: nothing, optimizer state, or gradients too. Default: "optim". */
  data_parallel_sharding_strategy: 'no_shard' | 'optim' | 'optim_grads';
}

/** where samples come from. */
export type DatasetConfig =
  MockDatasetConfig | IndexedDatasetConfig | JsonlDatasetConfig | TextDatasetConfig | ChatDatasetConfig;

export interface MockDatasetConfig {
  type: 'mock';
  /** seed of the sample order, or of the mock tokens. Default: 1234. */
  seed: number;
}

export interface IndexedDatasetConfig {
  /** token files in Megatron's format, PREFIX.bin and PREFIX.idx. */
  type: 'indexed';
  /** the PREFIX of one pair; or set blend. Default: null. */
  path: string | null;
  /** several pairs: the PREFIX of each, and a weight that says how many of the samples come from it. Default: null. */
  blend:
    | {
        path: string;
        weight: number;
      }[]
    | null;
  /** parts of the documents for training, validation and test, such as 969,30,1; of any sum. Default: "1,0,0". */
  split: string;
  /** false reads documents and samples in file order. Default: true. */
  shuffle: boolean;
  /** seed of the sample order, or of the mock tokens. Default: 1234. */
  seed: number;
  /** attention and positions stay inside a document of a sample that holds several. Default: false. */
  document_attention: boolean;
  /** the first token of a document is not predicted from the last one of the document before. Default: false. */
  mask_document_starts: boolean;
}

export interface JsonlDatasetConfig {
  type: 'jsonl';
  /** file of {"input_ids": [seq_length + 1 tokens]} or {"text": ...} lines. */
  path: string;
  /** false reads the samples in file order. Default: true. */
  shuffle: boolean;
  /** seed of the sample order, or of the mock tokens. Default: 1234. */
  seed: number;
  /** attention and positions stay inside a document of a sample that holds several. Default: false. */
  document_attention: boolean;
  /** the first token of a document is not predicted from the last one of the document before. Default: false. */
  mask_document_starts: boolean;
}

export interface TextDatasetConfig {
  type: 'text';
  /** text file, or builtin:moby-dick (a public-domain novel that is installed with us). */
  path: string;
  /** false reads the samples in file order. Default: true. */
  shuffle: boolean;
  /** seed of the sample order, or of the mock tokens. Default: 1234. */
  seed: number;
  /** attention and positions stay inside a document of a sample that holds several. Default: false. */
  document_attention: boolean;
  /** the first token of a document is not predicted from the last one of the document before. Default: false. */
  mask_document_starts: boolean;
}

export interface ChatDatasetConfig {
  /** conversations, by the chat template of section tokenizer; the assistant's tokens count. */
  type: 'chat';
  /** file of {"messages": [...]} or {"prompt": ..., "completion": ...} lines, or the PREFIX of its token files. */
  path: string;
  /** what becomes of conversations of more than seq_length + 1 tokens. Default: "truncate". */
  too_long: 'truncate' | 'drop' | 'error';
  /** several conversations in a sample, each seen by itself; false pads each to a sample. Default: false. */
  packing: boolean;
  /** false reads the samples in file order. Default: true. */
  shuffle: boolean;
  /** seed of the sample order, or of the mock tokens. Default: 1234. */
  seed: number;
}

/** loss on other data, as training goes on. */
export interface ValidationConfig {
  /** updates between evaluations; the last update is always followed by one; null never evaluates. Default: null. */
  eval_interval: number | null;
  /** batches of train.global_batch_size samples that an evaluation reads of each set; null, without eval_samples too, reads all of it. Default: null. */
  eval_iters: number | null;
  /** samples that an evaluation reads of each set, instead of eval_iters. Default: null. */
  eval_samples: number | null;
  /** evaluate before the first update too. Default: false. */
  eval_at_start: boolean;
  /** what is evaluated, by name: each as section dataset, `valid: {type: text, path: valid.txt}`. */
  sets: Record<string, DatasetConfig>;
}

/** text to tokens. */
export type TokenizerConfig = ByteTokenizerConfig | HuggingfaceTokenizerConfig;

export interface ByteTokenizerConfig {
  /** one token a byte; vocabulary of 256. */
  type: 'byte';
}

export interface HuggingfaceTokenizerConfig {
  type: 'huggingface';
  /** folder with tokenizer.json. */
  path: string;
}

/** saving and loading. */
export interface CheckpointConfig {
  /** folder to save checkpoints in; where nothing is said, mbridge pretrain saves in the run folder; null saves nothing. Default: null. */
  save: string | null;
  /** updates between saves; null saves at the end only; in the run folder a tenth of the run by default, at least 100. Default: null. */
  save_interval: number | null;
  /** updates between copies of the state in memory, from which --max-restarts goes on; null makes none. Default: null. */
  non_persistent_save_interval: number | null;
  /** folder to resume from; an empty or absent one starts fresh. Default: null. */
  load: string | null;
  /** how many newest checkpoints to keep; null keeps all; in the run folder 2 by default. Default: null. */
  keep_last: number | null;
  /** also keep checkpoints whose update number is a multiple of this. Default: null. */
  keep_every: number | null;
  /** replace and remove checkpoints in `save` that another run wrote; else they are refused. Default: false. */
  overwrite: boolean;
  /** resume although the data is not what it was when the checkpoint was saved. Default: false. */
  allow_changed_data: boolean;
  /** write while training goes on. Default: true. */
  async_save: boolean;
  /** Hugging Face folder (safetensors) or checkpoint to take weights from. Default: null. */
  pretrained_checkpoint: string | null;
  /** model keys in which loaded weights may be of another model, such as [rope_theta]. */
  allow_model_changes: ('rms_norm_eps' | 'rope_theta' | 'rope_scaling')[];
}

/** output. */
export interface LoggerConfig {
  /** updates between step lines; the last is always shown. Default: 1. */
  log_interval: number;
  /** run folder; default runs/<recipe>-<time>. Default: null. */
  log_dir: string | null;
  /** folder of TensorBoard's event files; default the run's own. Default: null. */
  tensorboard_dir: string | null;
  /** [first, last]: updates of which each rank writes a trace, rank-<r>/trace.json; null writes none. Default: null. */
  trace_steps: number[] | null;
  /** port of /metrics for Prometheus, served by the launcher, or by rank 0; null serves none. Default: null. */
  prometheus_port: number | null;
  /** address that /metrics is served on; others than 127.0.0.1 show it to whoever reaches it. Default: "127.0.0.1". */
  prometheus_host: string;
  /** updates between samples of what the model writes; null writes none. Default: null. */
  sample_interval: number | null;
  /** texts that samples go on with; an empty one begins a document. */
  sample_prompts: string[];
  /** tokens of a sample; with its prompt no more than model.seq_length. Default: 64. */
  sample_tokens: number;
  /** of samples; 0 takes the most probable token. Default: 0. */
  sample_temperature: number;
}

/** processes, devices and groups. */
export interface DistConfig {
  /** auto takes the GPUs where there are any. Default: "auto". */
  device: 'auto' | 'cuda' | 'cpu';
  /** always true: process groups are always explicit. Default: true. */
  use_decentralized_pg: true;
  /** always false: NCCL, or shared memory and TCP on the CPU. Default: false. */
  use_gloo_process_groups: false;
  /** seconds after which a collective counts as hung. Default: 600. */
  timeout_s: number;
  /** GPUs of one host read and write the memory of their groups directly; false: everything through NCCL. Default: true. */
  peer_memory: boolean;
  /** processes that share each GPU, to try a layout on fewer GPUs than it is for. Default: 1. */
  ranks_per_gpu: number;
  /** before each collective compare its op, dtype and size between its members: slow, for debugging. Default: false. */
  check_collectives: boolean;
  /** compare hashes of replicated tensors over their groups. Default: false. */
  check_placement: boolean;
}

/** randomness. */
export interface RngConfig {
  /** seed of the weights; the same weights on every layout. Default: 1234. */
  seed: number;
}

import type { Problem } from './problem.js';
import type { RunConfig } from './schema.js';

/**
 * Features that the schema or Megatron-Bridge has a key for and that are not built yet. Whoever builds one deletes its
 * line here; until then the key is refused, never ignored.
 */
export const NOT_BUILT_KEYS: Readonly<Record<string, string>> = {
  'peft.lora_A_init_method': 'A begins with normal deviates, of the variance of the uniform ones that peft draws',
  'peft.lora_B_init_method': 'B begins with zeros',
  comm_overlap: 'see ddp.overlap_grad_reduce and ddp.overlap_param_gather',
  profiling: 'leave the section out',
  'train.rampup_batch_size': 'the batch size is train.global_batch_size throughout',
  'train.train_samples': 'set train.train_iters',
  'model.recompute_method': 'model.recompute_granularity applies to every layer',
  'model.recompute_num_layers': 'model.recompute_granularity applies to every layer',
  'scheduler.lr_wsd_decay_style': 'the final decay of WSD is linear',
  'dataset.seq_length': 'the length is set on the model only (model.seq_length)',
  'dataset.sequence_length': 'the length is set on the model only (model.seq_length)',
  'logger.wandb_project': "use metrics.ndjson or TensorBoard's event files, in the run's folder",
};

interface Gap {
  readonly path: string;
  readonly asked: (cfg: RunConfig) => boolean;
  readonly message: string;
}

const GAPS: readonly Gap[] = [
  {
    path: 'model.expert_model_parallel_size',
    asked: (cfg) => cfg.model.expert_model_parallel_size > 1,
    message: 'expert parallelism is not built yet; leave it at 1',
  },
  {
    path: 'ddp.grad_reduce_in_fp32',
    asked: (cfg) => !cfg.ddp.grad_reduce_in_fp32,
    message:
      'bf16 of the reduction alone is not built yet; ddp.grads_dtype=bf16 keeps and reduces them in it, leave this at true',
  },
  {
    path: 'model.batch_invariant',
    asked: ({ model, peft }) => model.batch_invariant && peft.type !== 'none',
    message: 'adapters have no such products yet; merge them first (mbridge checkpoint export), or leave it at false',
  },
  {
    path: 'peft.type',
    asked: ({ mixed_precision: precision, peft }) => precision === 'fp8_mixed' && peft.type !== 'none',
    message: 'products of e4m3 beside adapters are not built yet; use mixed_precision=bf16_mixed',
  },
  {
    path: 'ddp.bucket_size',
    asked: (cfg) => cfg.ddp.bucket_size !== null,
    message: 'buckets are a layer each and other sizes are not built yet; leave it unset',
  },
];

/** What `cfg` asks for that is not built. */
export function notBuilt(cfg: RunConfig, placeOf: (path: string) => string | undefined): Problem[] {
  return GAPS.filter((gap) => gap.asked(cfg)).map(({ path, message }) => ({
    code: 'MB_CONFIG_NOT_BUILT',
    place: placeOf(path),
    path,
    message,
  }));
}

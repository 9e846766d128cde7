/**
 * The simple path: a recipe, with explicit process groups (which is how mbridge always works).
 *
 *   node dist/examples/decentralized-pg/pretrain-qwen3-simple.js --nproc 8     # 8 GPUs: TP2 x PP2 x DP2
 *   node dist/examples/decentralized-pg/pretrain-qwen3-simple.js --nproc 4     # 4 GPUs: TP2 x PP2
 *   node dist/examples/decentralized-pg/pretrain-qwen3-simple.js --nproc 2 --tiny 1    # two CPU processes: TP2
 *
 * Under torchrun leave --nproc out: each started process becomes one rank.
 */
import { pretrain, qwen34bPretrainConfig, qwen3TinyPretrainConfig, runMain } from '../../src/index.js';
import { numberOptions, processesToStart } from './options.js';

process.exitCode = await runMain(() => {
  const options = numberOptions({
    nproc: undefined as number | undefined,
    tiny: 0,
    'train-iters': 100,
    'ranks-per-gpu': 1,
  });

  const nproc = processesToStart(options.nproc, 4);
  const parallel = {
    tensor_model_parallel_size: 2,
    pipeline_model_parallel_size: (nproc ?? Number(process.env['WORLD_SIZE'])) >= 4 ? 2 : 1,
    sequence_parallel: true,
    train_iters: options['train-iters'],
  };
  const cfg = options.tiny
    ? qwen3TinyPretrainConfig(parallel)
    : qwen34bPretrainConfig({
        ...parallel,
        seq_length: 1024,
        global_batch_size: 32,
        micro_batch_size: 1,
        lr_warmup_iters: Math.min(10, options['train-iters'] - 1),
      });

  // The two lines of the original. Here the first is always true, and the second can only be false: NCCL only.
  cfg.dist.use_decentralized_pg = true;
  cfg.dist.use_gloo_process_groups = false;
  cfg.dist.ranks_per_gpu = options['ranks-per-gpu']; // more than 1: the same on fewer GPUs

  return pretrain(cfg, { nproc, name: 'qwen3-simple' });
});

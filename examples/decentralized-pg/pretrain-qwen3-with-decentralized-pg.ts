/**
 * The advanced path: grid, groups, model, optimizer, data and training loop by hand, each handed its groups.
 * `mbridge pretrain` makes the same calls.
 *
 *   node dist/examples/decentralized-pg/pretrain-qwen3-with-decentralized-pg.js --nproc 8                          # DP2
 *   node dist/examples/decentralized-pg/pretrain-qwen3-with-decentralized-pg.js --nproc 4 --tp-size 2 --pp-size 2
 *   node dist/examples/decentralized-pg/pretrain-qwen3-with-decentralized-pg.js --nproc 2 --tp-size 2 --pp-size 1
 *   node dist/examples/decentralized-pg/pretrain-qwen3-with-decentralized-pg.js --nproc 4 --pp-size 1 --cp-size 2    # long sequences
 *
 * Under torchrun, srun or mpirun leave --nproc out: each started process becomes one rank.
 */
import {
  CommRuntime,
  HyperCommGrid,
  ProcessGroupCollection,
  isMain,
  openDevice,
  provideDistributedModel,
  qwen34bPretrainConfig,
  runDistributed,
  runMain,
  setupDataIterators,
  setupOptimizer,
  train,
  validateLayout,
  type CommGroup,
  type RunConfig,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions } from './options.js';

function configure(): { config: RunConfig; nproc: number | undefined } {
  const o = numberOptions({
    nproc: undefined as number | undefined,
    'tp-size': 2,
    'pp-size': 2,
    'cp-size': 1,
    'num-layers': 4,
    'seq-length': 1024,
    'train-iters': 100,
    'global-batch-size': 32,
    'micro-batch-size': 1,
    lr: 1e-4,
    // Not in the original: ranks that share each GPU, and a narrower model for machines without any.
    'ranks-per-gpu': 1,
    'hidden-size': 2560,
    'vocab-size': 10240,
  });
  const scale = o['hidden-size'] / 2560;
  const config = qwen34bPretrainConfig({
    tensor_model_parallel_size: o['tp-size'],
    pipeline_model_parallel_size: o['pp-size'],
    context_parallel_size: o['cp-size'],
    sequence_parallel: o['tp-size'] > 1,
    num_hidden_layers: o['num-layers'],
    hidden_size: o['hidden-size'],
    intermediate_size: Math.round((9728 * scale) / 64) * 64,
    num_attention_heads: 32 * Math.ceil(scale),
    num_key_value_heads: 8 * Math.ceil(scale),
    head_dim: Math.max(16, Math.round((128 * scale) / 8) * 8),
    vocab_size: o['vocab-size'],
    seq_length: o['seq-length'],
    train_iters: o['train-iters'],
    global_batch_size: o['global-batch-size'],
    micro_batch_size: o['micro-batch-size'],
    lr: o.lr,
    min_lr: o.lr / 10,
    weight_decay: 0.01,
    lr_warmup_iters: Math.min(10, o['train-iters'] - 1),
  });
  config.dist.ranks_per_gpu = o['ranks-per-gpu'];
  return { config, nproc: o.nproc };
}

export const runWorker: RunWorker = async (context) => {
  const { config: cfg, rank, worldSize } = context;
  const { tp, cp, dp, pp } = validateLayout(cfg, worldSize, { device: context.device });

  // Step 1: a device, and what makes communicators: the counterpart of torch.distributed.init_process_group.
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: cfg.dist.timeout_s });

  // Step 2: the grid of ranks, its groups, and their collection. The first dimension varies fastest.
  const grid = new HyperCommGrid({
    shape: [tp, cp, dp, pp],
    dimNames: ['tp', 'cp', 'dp', 'pp'],
    rankOffset: 0,
    worldSize,
    backend: 'nccl',
  });
  const tpPg = await grid.createPg(['tp'], runtime);
  const ppPg = await grid.createPg(['pp'], runtime);
  const dpPg = await grid.createPg(['dp'], runtime);
  const cpPg = await grid.createPg(['cp'], runtime);
  const mpPg = await grid.createPg(['tp', 'pp'], runtime);
  const dpCpPg = await grid.createPg(['dp', 'cp'], runtime);
  const allPg = await grid.createPg(['tp', 'cp', 'dp', 'pp'], runtime);
  const firstAndLast = (stages: readonly number[]): number[] => [...new Set([stages[0]!, stages.at(-1)!])];
  const embdPg = await grid.createDerived('embd', ['pp'], firstAndLast, runtime);
  runtime.watch(); // a group that fails or hangs is aborted, not waited for
  const pgCollection = new ProcessGroupCollection<CommGroup>({
    tp: tpPg,
    pp: ppPg,
    dp: dpPg,
    cp: cpPg,
    mp: mpPg,
    dpCp: dpCpPg,
    embd: embdPg,
    intraDistOpt: allPg, // gradient norms are summed over all ranks of this model
    interDistOpt: null, // one optimizer instance
  });

  // Step 3: every component is handed its groups. New weights are a function of rng.seed and their names, the same on every
  // layout; a component of your own that draws random numbers takes its streams from modelParallelManualSeed.
  const model = await provideDistributedModel(cfg, { pgCollection, device });
  const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection });
  const data = await setupDataIterators(cfg, {
    dpGroup: pgCollection.dp, // samples are divided over dp
    vocabSize: cfg.model.vocab_size,
    seqLength: cfg.model.seq_length,
    globalBatchSize: cfg.train.global_batch_size,
    microBatchSize: cfg.train.micro_batch_size,
  });
  await train({
    cfg,
    model,
    optimizer,
    scheduler,
    data,
    pgCollection,
    onStep: (event) => context.emit(event),
    onBegin: (step) => context.progress(step),
    endsAfter: (step) => context.endsAfter(step), // a signal: all ranks end after the same update
  });

  data.close();
  model.dispose();
  runtime.destroyAll();
  device.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => runDistributed({ ...configure(), worker: import.meta.url }));
}

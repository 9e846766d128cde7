import type { CommGroup } from '../comm/comm-group.js';
import { HfWeights } from '../checkpoint/hf-weights.js';
import type { RunConfig } from '../config/schema.js';
import type { Device } from '../engine/device.js';
import type { OptimizerHyper } from '../engine/ops.js';
import type { ProcessGroupCollection } from '../grid/process-group-collection.js';
import { NON_MEMBER } from '../grid/process-group.js';
import { DistributedModel } from '../model/distributed-model.js';
import { buildStage, isSharded, type Stage } from '../model/stage.js';
import { loadWeights, RandomWeights } from '../model/weight-source.js';
import { DistributedOptimizer } from '../optim/distributed-optimizer.js';
import type { Bucket } from '../optim/parameter-buffer.js';
import type { RngStreams } from '../parallel/seeds.js';
import { refuseIfTooLarge } from './memory-check.js';

export type Groups = ProcessGroupCollection<CommGroup>;

export interface ProvideModelOptions {
  pgCollection: Groups;
  device: Device;
  /** Random streams for whatever in a model draws from them. Qwen3 has no dropout, and weights never do. */
  rng?: RngStreams;
  /** False for a model that is only evaluated (a reference in reinforcement learning): no gradients, no optimizer. */
  trainable?: boolean;
}

/**
 * Builds this rank's part of the model, takes its memory once, and sets the weights: from
 * `checkpoint.pretrained_checkpoint`, or new ones from `rng.seed`, equal on every layout. Every rank of the
 * collection's grid calls it.
 * @throws MbridgeError exit 4 where the memory is not there, exit 7 for a bad checkpoint
 */
export async function provideDistributedModel(
  cfg: RunConfig,
  { pgCollection: pgs, device, trainable = true }: ProvideModelOptions,
): Promise<DistributedModel> {
  const { tp, pp, dp, dpCp } = pgs;
  const place = { tp, pp, dp, dpCp };
  const stage = buildStage({ cfg, place, deviceKind: device.kind, trainable, live: { device, tp } });
  refuseIfTooLarge(stage.plan, device);
  stage.plan.commit(device);
  stage.env.prepare();
  await initializeWeights(cfg, stage, device);
  return new DistributedModel(stage, { tp, pp });
}

async function initializeWeights(cfg: RunConfig, stage: Stage, device: Device): Promise<void> {
  const { ops } = stage.env;
  const { pretrained_checkpoint: path } = cfg.checkpoint;
  const staging = (bucket: Bucket): NonNullable<Bucket['grads']> => {
    if (bucket.grads !== null) return bucket.grads;
    if (bucket.params.dtype === 'f32') return bucket.params;
    throw new Error('a frozen bf16 model has no float32 memory to load through');
  };
  if (path === null) {
    const source = new RandomWeights(ops, cfg.rng.seed, stage.shape.initializerRange);
    await loadWeights(ops, stage.buffer.buckets, source, staging);
    return;
  }
  const source = await HfWeights.open(path, stage.shape, device);
  try {
    await loadWeights(ops, stage.buffer.buckets, source, staging);
  } finally {
    await source.close();
  }
}

/** The schedule as the optimizer's device code takes it. The learning rate is a function of the updates applied. */
export function optimizerHyper(cfg: RunConfig): OptimizerHyper {
  const { optimizer: o, scheduler: s } = cfg;
  return {
    lr: o.lr,
    minLr: o.min_lr,
    beta1: o.adam_beta1,
    beta2: o.adam_beta2,
    eps: o.adam_eps,
    clipGrad: o.clip_grad,
    warmupIters: s.lr_warmup_iters,
    decayIters: s.lr_decay_iters,
    decayStyle: s.lr_decay_style,
    wsdIters: s.lr_wsd_decay_iters ?? 0,
  };
}

export interface SetupOptimizerOptions {
  pgCollection: Groups;
}

/** The optimizer over a model's parameters, and the schedule that it follows. */
export function setupOptimizer(
  cfg: RunConfig,
  model: DistributedModel,
  { pgCollection: pgs }: SetupOptimizerOptions,
): { optimizer: DistributedOptimizer; scheduler: OptimizerHyper } {
  const { buffer, optimizer: state, env } = model.stage;
  if (state === null) throw new Error('a frozen model has no optimizer');
  const embd = pgs.embd;
  const hyper = optimizerHyper(cfg);
  const optimizer = new DistributedOptimizer({
    ops: env.ops,
    buffer,
    state,
    groups: { tp: pgs.tp, dpCp: pgs.dpCp, embd: embd === NON_MEMBER ? null : embd, model: pgs.intraDistOpt },
    hyper,
    weightDecay: cfg.optimizer.weight_decay,
    sharded: isSharded(cfg),
    lossAndTokens: model.countedLoss,
  });
  optimizer.initialize();
  return { optimizer, scheduler: hyper };
}

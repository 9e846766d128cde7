import type { CommGroup } from '../groups/comm/comm-group.js';
import type { CommRuntime } from '../groups/comm/comm-runtime.js';
import { AdapterFolder } from '../checkpoint/hf/adapter-folder.js';
import { CheckpointWeights } from '../checkpoint/run/checkpoint-weights.js';
import type { Checkpoint } from '../checkpoint/format/checkpoint.js';
import { openWeights } from '../checkpoint/run/open-weights.js';
import { checkConfig } from '../config/check-config.js';
import { validateLayout, type RunLayout } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import { isAdapterParameter, type Adapters } from '../families/adapters.js';
import { VALUE_HEAD, type HeadKind } from '../families/decoder.js';
import type { DataIterator } from '../data/data-iterator.js';
import { setupDataIterators, type SetupDataOptions } from '../data/setup-data-iterators.js';
import type { Device } from '../engine/device.js';
import type { OptimizerHyper } from '../engine/ops.js';
import { trainingFields } from '../groups/grid/group-fields.js';
import { HyperCommGrid } from '../groups/grid/hyper-comm-grid.js';
import { ProcessGroupCollection } from '../groups/grid/process-group-collection.js';
import { NON_MEMBER } from '../groups/grid/process-group.js';
import { DistributedModel } from '../model/stage/distributed-model.js';
import type { Fp8 } from '../model/blocks/fp8-product.js';
import type { Loss } from '../model/blocks/loss.js';
import type { GenerationSizes } from '../model/decode/kv-cache.js';
import { stageSpec } from '../model/stage/stage-spec.js';
import { buildStage, prepareMemory, stagingOf, type Stage } from '../model/stage/stage.js';
import type { ParameterSpec } from '../model/parameters/parameter.js';
import { loadWeights, RandomWeights, type WeightSource } from '../model/parameters/weight-source.js';
import { DistributedOptimizer } from '../model/optim/distributed-optimizer.js';
import { refuseWithoutFp8 } from './fp8-device.js';
import { refuseIfTooLarge } from './memory-check.js';

export type Groups = ProcessGroupCollection<CommGroup>;

/** The groups of a model that spans all of `worldSize` ranks in the configured layout. Every rank calls it. */
export async function setupGroups(
  cfg: RunConfig,
  { runtime, worldSize }: { runtime: CommRuntime; worldSize: number },
): Promise<{ layout: RunLayout; grid: HyperCommGrid; pgCollection: Groups }> {
  checkConfig(cfg);
  const layout = validateLayout(cfg, worldSize, { device: runtime.device.kind });
  const { tp, cp, dp, pp } = layout;
  const shape = [tp, cp, dp, pp];
  const grid = new HyperCommGrid({ shape, dimNames: ['tp', 'cp', 'dp', 'pp'], worldSize, backend: 'nccl' });
  const wanted = trainingFields({ tied: cfg.model.tie_word_embeddings });
  return { layout, grid, pgCollection: await ProcessGroupCollection.fromGrid(grid, runtime, { wanted }) };
}

/** Where a resumed run goes on, and a program's own samples. */
export type RunDataOptions = Pick<SetupDataOptions, 'consumedSamples' | 'startStep' | 'dataset' | 'shuffleSeed'>;

/** This replica's samples, in the sizes of the configuration. */
export async function setupRunData(
  cfg: RunConfig,
  { dp }: Pick<Groups, 'dp'>,
  options: RunDataOptions = {},
): Promise<DataIterator> {
  checkConfig(cfg);
  return setupDataIterators(cfg, {
    dpGroup: dp,
    vocabSize: cfg.model.vocab_size,
    seqLength: cfg.model.seq_length,
    globalBatchSize: cfg.train.global_batch_size,
    microBatchSize: cfg.train.micro_batch_size,
    ...options,
  });
}

export interface ProvideModelOptions {
  pgCollection: Groups;
  device: Device;
  /**
   * False for a model that is only evaluated (a reference in reinforcement learning): no gradients, no optimizer. A
   * pattern trains the buckets whose name it matches: see StageSpec.
   */
  trainable?: boolean | RegExp;
  /** `value`: a model of one number a token, a value or reward model; its row of weights is new where it is loaded from a language model. */
  head?: HeadKind;
  /** What the model is trained to make small: cross entropy, or `valueLoss`, by default. The same on every rank. */
  loss?: Loss;
  /** Rows that the model can generate at once, and their length: memory for them is planned with the model's. */
  generation?: GenerationSizes;
  /** True for a model that does nothing but generate: no gradients, and no memory for passes over whole sequences. */
  onlyGenerates?: boolean;
  /** In place of what the configuration says, for tests on the CPU: see SpecOptions. */
  fp8?: Fp8 | null;
  /** What the run resumes from: its weights are taken, whatever the configuration names. */
  checkpoint?: Checkpoint | null;
}

/**
 * Builds this rank's part of the model, takes its memory once, and sets the weights: from a checkpoint, from
 * `checkpoint.pretrained_checkpoint`, or new ones from `rng.seed`, equal on every layout. Every rank of the
 * collection's grid calls it.
 * @throws MbridgeError exit 4 where the memory is not there or the GPU has no e4m3, exit 7 for a bad checkpoint
 */
export async function provideDistributedModel(cfg: RunConfig, options: ProvideModelOptions): Promise<DistributedModel> {
  checkConfig(cfg);
  const { pgCollection: pgs, device, loss, checkpoint = null } = options;
  const { tp, cp, pp, dpCp } = pgs;
  const spec = stageSpec(cfg, pgs, { ...options, device: device.kind });
  refuseWithoutFp8(spec, device);
  const stage = buildStage(spec, { device, tp, cp, dpCp }, loss);
  refuseIfTooLarge(stage.plan, device, cfg.dist.ranks_per_gpu);
  stage.plan.commit(device);
  const shared = cfg.dist.peer_memory ? [tp, dpCp] : [];
  prepareMemory(stage, shared);
  await initializeWeights(cfg, stage, device, checkpoint);
  return new DistributedModel(stage, { tp, pp, shared });
}

async function initializeWeights(
  cfg: RunConfig,
  stage: Stage,
  device: Device,
  checkpoint: Checkpoint | null,
): Promise<void> {
  const { ops } = stage.env;
  const { optimizer, buffer } = stage;
  const { pretrained_checkpoint: path } = cfg.checkpoint;
  const fresh = new RandomWeights(ops, cfg.rng.seed, stage.shape.initializerRange);
  const { head, adapters } = stage.spec;
  type Source = WeightSource & { head?: HeadKind; adapters?: Adapters | null; close?(): Promise<void> };
  let source: Source;
  if (checkpoint !== null) source = new CheckpointWeights(checkpoint, device);
  else if (path !== null) {
    const allowed = cfg.checkpoint.allow_model_changes;
    source = await openWeights(path, stage.shape, device, allowed, { head, adapters });
  } else source = fresh;
  // A language model has no row of weights for values.
  const rowIsNew = source.head === 'language';
  let own: Source = source.adapters == null ? fresh : source;
  try {
    const named = cfg.peft.type === 'none' ? null : cfg.peft.adapter;
    if (checkpoint === null && named !== null && adapters !== null) {
      own = await AdapterFolder.open(named, stage.shape, adapters, device);
    }
    const sourceOf = ({ name }: ParameterSpec): Source => {
      if (isAdapterParameter(name)) return own;
      return rowIsNew && name === VALUE_HEAD ? fresh : source;
    };
    await loadWeights(
      ops,
      buffer.buckets,
      { fill: (spec, out) => sourceOf(spec).fill(spec, out) },
      (bucket) => stagingOf(stage, bucket),
      (bucket, values) => optimizer?.adopt(ops, bucket, values),
    );
  } finally {
    if (own !== source) await own.close?.();
    await source.close?.();
  }
}

/** The schedule as the optimizer's device code takes it. The learning rate is a function of the updates applied. */
function optimizerHyper(cfg: RunConfig): OptimizerHyper {
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

/** The optimizer over a model's parameters, and the schedule that it follows. It is disposed of with the model. */
export function setupOptimizer(
  cfg: RunConfig,
  model: DistributedModel,
  { pgCollection: pgs }: SetupOptimizerOptions,
): { optimizer: DistributedOptimizer; scheduler: OptimizerHyper } {
  checkConfig(cfg);
  const { totals, optimizer: state, env } = model.stage;
  if (state === null) throw new Error('a frozen model has no optimizer');
  const embd = pgs.has('embd') ? pgs.embd : null;
  const hyper = optimizerHyper(cfg);
  const optimizer = new DistributedOptimizer({
    ops: env.ops,
    state,
    totals,
    groups: { tp: pgs.tp, embd: embd === NON_MEMBER ? null : embd, model: pgs.intraDistOpt },
    hyper,
    weightDecay: cfg.optimizer.weight_decay,
    seed: cfg.rng.seed,
    overlap: { gradReduce: cfg.ddp.overlap_grad_reduce, paramGather: cfg.ddp.overlap_param_gather },
  });
  model.beforeDispose(() => {
    optimizer.dispose();
  });
  optimizer.initialize();
  return { optimizer, scheduler: hyper };
}

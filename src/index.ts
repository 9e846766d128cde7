/** The library's public API: everything the command line does, as functions that are handed what they need. */
export { EXIT, MbridgeError } from './base/errors.js';
export { checkConfig } from './config/check-config.js';
export { resolveConfig } from './config/resolve.js';
export { modelShape, type ModelShape } from './families/model-shape.js';
export { validateLayout, type RunLayout } from './config/layout.js';
export type { ConfigInput, RunConfig } from './config/schema.js';
export { HyperCommGrid } from './groups/grid/hyper-comm-grid.js';
export { ProcessGroupCollection } from './groups/grid/process-group-collection.js';
export { NON_MEMBER, type GroupRuntime, type ProcessGroup } from './groups/grid/process-group.js';
export { modelParallelManualSeed, type RngStreams } from './model/parallel/seeds.js';
export { CommGroup } from './groups/comm/comm-group.js';
export { CommRuntime } from './groups/comm/comm-runtime.js';
export type { Store } from './job/rendezvous/store.js';
export { Device } from './engine/device.js';
export { MemoryPlan } from './engine/memory-plan.js';
export { openDevice } from './engine/open-device.js';
export type { Tensor } from './engine/tensor.js';
export {
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
  type Groups,
  type RunDataOptions,
} from './train/setup.js';
export { DistributedModel } from './model/stage/distributed-model.js';
export { DistributedOptimizer } from './model/optim/distributed-optimizer.js';
export { setupDataIterators, type SetupDataOptions } from './data/setup-data-iterators.js';
export type { Dataset, Sample } from './data/dataset.js';
export { runWorker as pretrainWorker } from './train/run-worker.js';
export { DataIterator, type MicroBatch } from './data/data-iterator.js';
export { RunCheckpoints, type RunCheckpointsOptions } from './checkpoint/run/run-checkpoints.js';
export { PlacementCheck } from './train/placement-check.js';
export { train, type TrainOptions, type TrainResult } from './train/train.js';
export { planRun, type RunPlan } from './train/plan.js';
export { isMain, pretrain, runDistributed, runMain, type RunDistributedOptions } from './run-distributed.js';
export type { RunWorker, StepEvent, StopSignal, WorkerContext, WorkerEvent } from './job/worker/context.js';
export {
  qwen306bPretrainConfig,
  qwen314bPretrainConfig,
  qwen317bPretrainConfig,
  qwen332bPretrainConfig,
  qwen34bPretrainConfig,
  qwen38bPretrainConfig,
  qwen3PretrainConfig,
  qwen3TinyPretrainConfig,
} from '../recipes/qwen3.js';

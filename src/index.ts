/** The library's public API: everything the command line does, as functions that are handed what they need. */
export { EXIT, MbridgeError, type ExitKind } from './base/errors.js';
export { checkConfig } from './config/check-config.js';
export { resolveConfig, type ConfigSources } from './config/resolve.js';
export { parseOverrides } from './config/overrides.js';
export { modelShape, type ModelShape } from './families/model-shape.js';
export { validateLayout, type RunLayout } from './config/layout.js';
export type { ConfigInput, RunConfig } from './config/schema.js';
export {
  HyperCommGrid,
  type HyperCommGridOptions,
  type InView,
  type ViewOptions,
} from './groups/grid/hyper-comm-grid.js';
export { ProcessGroupCollection } from './groups/grid/process-group-collection.js';
export { NON_MEMBER, type GroupRuntime, type ProcessGroup } from './groups/grid/process-group.js';
export { modelParallelManualSeed, type ManualSeedOptions, type RngStreams } from './model/parallel/seeds.js';
export { CommGroup, type PointToPoint } from './groups/comm/comm-group.js';
export { CommRuntime, type CommRuntimeOptions } from './groups/comm/comm-runtime.js';
export type { Store } from './job/rendezvous/store.js';
export { Device } from './engine/device.js';
export { MemoryPlan } from './engine/memory-plan.js';
export { openDevice } from './engine/open-device.js';
export type { Tensor } from './engine/tensor.js';
export type { OptimizerHyper } from './engine/ops.js';
export {
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
  type Groups,
  type ProvideModelOptions,
  type RunDataOptions,
  type SetupOptimizerOptions,
} from './train/setup.js';
export { DistributedModel, type ParameterSlice } from './model/stage/distributed-model.js';
export { generate, type GeneratedRow, type GenerateOptions, type StopReason } from './model/stage/generate.js';
export type { GenerationSizes } from './model/decode/kv-cache.js';
export { DistributedOptimizer } from './model/optim/distributed-optimizer.js';
export { setupDataIterators, type SetupDataOptions } from './data/setup-data-iterators.js';
export type { Dataset, Sample, SourceProgress } from './data/dataset.js';
export { runWorker as pretrainWorker, type TrainingOptions } from './train/run-worker.js';
export type { TrainingCallbacks } from './train/callbacks.js';
export { DataIterator } from './data/data-iterator.js';
export type { BatchSource, FieldSpec, MicroBatch } from './data/micro-batch.js';
export type { Loss, LossFunction } from './model/blocks/loss.js';
export { crossEntropy, VocabularySoftmax, weightedCrossEntropy } from './model/losses/cross-entropy.js';
export {
  tokenLoss,
  type TokenBatch,
  type TokenLossFunction,
  type TokenLossOptions,
  type TokenResult,
} from './model/losses/token-loss.js';
export type { TokenDerivatives, TokenScores } from './model/losses/token-reader.js';
export {
  gspoLoss,
  grpoLoss,
  klEstimate,
  ppoLoss,
  type KlEstimator,
  type PolicyLossOptions,
} from './model/losses/policy-losses.js';
export { dpoLoss, type DpoOptions } from './model/losses/preference-loss.js';
export { distillationLoss, type DistillationOptions } from './model/losses/distillation-loss.js';
export { FullDistillationLoss, type FullDistillationOptions } from './model/losses/full-distillation-loss.js';
export type { TopLogprobs, TopOptions } from './model/losses/top-reader.js';
export { valueLoss, type ValueLossOptions } from './model/losses/value-loss.js';
export type { HeadKind } from './families/decoder.js';
export { RowTable, type RowPart } from './model/stage/row-table.js';
export { WeightTransfer, type WeightTarget, type WeightTransferOptions } from './model/transfer/weight-transfer.js';
export { SampleBatches, type SampleBatchesOptions } from './data/sample-batches.js';
export { stageSpec, type StageSpec } from './model/stage/stage-spec.js';
export { RunCheckpoints, type RunCheckpointsOptions } from './checkpoint/run/run-checkpoints.js';
export { PlacementCheck } from './train/placement-check.js';
export { Evaluator, type Evaluation, type EvaluatorOptions } from './train/evaluator.js';
export { openRun, type OpenRunOptions, type Run, type RunTrainOptions } from './train/run.js';
export { train, type Every, type TrainOptions, type TrainResult } from './train/train.js';
export { fetchStep, type StepResult } from './train/metrics.js';
export { planRun, type PlannedModel, type RankPlan, type RunPlan } from './train/plan.js';
export {
  planJob,
  type Job,
  type JobModel,
  type JobModelPlan,
  type JobPhase,
  type JobPlan,
  type JobRankPlan,
} from './train/plan-job.js';
export { isMain, runDistributed, runMain, type RunDistributedOptions } from './run-distributed.js';
export { pretrain, type PretrainOptions } from './run-pretrain.js';
export { finetune, type FinetuneOptions } from './run-finetune.js';
export { runGeneration, type GenerationRequest } from './run-generation.js';
export { evaluate, evaluateChoices, type ChoicesSource } from './run-evaluation.js';
export type {
  EvaluationEvent,
  RunWorker,
  SavedCheckpoint,
  StepEvent,
  StopSignal,
  WorkerContext,
  WorkerEvent,
} from './job/worker/context.js';
export { findRecipe } from '../recipes/index.js';
export type { Recipe, RecipeOverrides } from '../recipes/recipe.js';
export { llama3PretrainConfig } from '../recipes/llama3.js';
export { qwen25PretrainConfig } from '../recipes/qwen2-5.js';
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

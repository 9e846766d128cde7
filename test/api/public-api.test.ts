import { createRequire } from 'node:module';
import { relative } from 'node:path';
import ts from 'typescript';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import * as api from '../../src/index.js';
import { runRanks, type RankContext, type RankFunction, type RunRanksOptions } from '../../src/testing/run-ranks.js';
import { parse } from '../architecture/sources.js';

/**
 * src/index.ts is a contract. A name that goes or a signature that changes breaks programs of others: change this test
 * together with CHANGELOG.md. The types are checked by `npm run typecheck`, at run time they are nothing.
 */

/** What src/index.ts exports: values, and types. */
function exported(): { values: string[]; types: string[] } {
  const found = { values: [] as string[], types: [] as string[] };
  parse('src/index.ts').forEachChild((node) => {
    if (!ts.isExportDeclaration(node) || node.exportClause === undefined || !ts.isNamedExports(node.exportClause))
      return;
    for (const { name, isTypeOnly } of node.exportClause.elements) {
      (node.isTypeOnly || isTypeOnly ? found.types : found.values).push(name.text);
    }
  });
  return { values: found.values.sort(), types: found.types.sort() };
}

describe('the names', () => {
  test('of values', () => {
    expect(exported().values).toEqual(Object.keys(api).sort());
    expect(exported().values).toMatchInlineSnapshot(`
      [
        "CommGroup",
        "CommRuntime",
        "DataIterator",
        "Device",
        "DistributedModel",
        "DistributedOptimizer",
        "EXIT",
        "Evaluator",
        "FullDistillationLoss",
        "HyperCommGrid",
        "MbridgeError",
        "MemoryPlan",
        "NON_MEMBER",
        "PlacementCheck",
        "ProcessGroupCollection",
        "RowTable",
        "RunCheckpoints",
        "SampleBatches",
        "VocabularySoftmax",
        "WeightTransfer",
        "checkConfig",
        "crossEntropy",
        "distillationLoss",
        "dpoLoss",
        "evaluate",
        "evaluateChoices",
        "fetchStep",
        "findRecipe",
        "finetune",
        "generate",
        "grpoLoss",
        "gspoLoss",
        "isMain",
        "klEstimate",
        "llama3PretrainConfig",
        "modelParallelManualSeed",
        "modelShape",
        "openDevice",
        "openRun",
        "parseOverrides",
        "planJob",
        "planRun",
        "ppoLoss",
        "pretrain",
        "pretrainWorker",
        "provideDistributedModel",
        "qwen25PretrainConfig",
        "qwen306bPretrainConfig",
        "qwen314bPretrainConfig",
        "qwen317bPretrainConfig",
        "qwen332bPretrainConfig",
        "qwen34bPretrainConfig",
        "qwen38bPretrainConfig",
        "qwen3PretrainConfig",
        "qwen3TinyPretrainConfig",
        "resolveConfig",
        "runDistributed",
        "runGeneration",
        "runMain",
        "setupDataIterators",
        "setupGroups",
        "setupOptimizer",
        "setupRunData",
        "stageSpec",
        "tokenLoss",
        "train",
        "validateLayout",
        "valueLoss",
        "weightedCrossEntropy",
      ]
    `);
  });

  test('of types', () => {
    expect(exported().types).toMatchInlineSnapshot(`
      [
        "BatchSource",
        "ChoicesSource",
        "CommRuntimeOptions",
        "ConfigInput",
        "ConfigSources",
        "Dataset",
        "DistillationOptions",
        "DpoOptions",
        "Evaluation",
        "EvaluationEvent",
        "EvaluatorOptions",
        "Every",
        "ExitKind",
        "FieldSpec",
        "FinetuneOptions",
        "FullDistillationOptions",
        "GenerateOptions",
        "GeneratedRow",
        "GenerationRequest",
        "GenerationSizes",
        "GroupRuntime",
        "Groups",
        "HeadKind",
        "HyperCommGridOptions",
        "InView",
        "Job",
        "JobModel",
        "JobModelPlan",
        "JobPhase",
        "JobPlan",
        "JobRankPlan",
        "KlEstimator",
        "Loss",
        "LossFunction",
        "ManualSeedOptions",
        "MicroBatch",
        "ModelShape",
        "OpenRunOptions",
        "OptimizerHyper",
        "ParameterSlice",
        "PlannedModel",
        "PointToPoint",
        "PolicyLossOptions",
        "PretrainOptions",
        "ProcessGroup",
        "ProvideModelOptions",
        "RankPlan",
        "Recipe",
        "RecipeOverrides",
        "RngStreams",
        "RowPart",
        "Run",
        "RunCheckpointsOptions",
        "RunConfig",
        "RunDataOptions",
        "RunDistributedOptions",
        "RunLayout",
        "RunPlan",
        "RunTrainOptions",
        "RunWorker",
        "Sample",
        "SampleBatchesOptions",
        "SavedCheckpoint",
        "SetupDataOptions",
        "SetupOptimizerOptions",
        "SourceProgress",
        "StageSpec",
        "StepEvent",
        "StepResult",
        "StopReason",
        "StopSignal",
        "Store",
        "Tensor",
        "TokenBatch",
        "TokenDerivatives",
        "TokenLossFunction",
        "TokenLossOptions",
        "TokenResult",
        "TokenScores",
        "TopLogprobs",
        "TopOptions",
        "TrainOptions",
        "TrainResult",
        "TrainingCallbacks",
        "TrainingOptions",
        "ValueLossOptions",
        "ViewOptions",
        "WeightTarget",
        "WeightTransferOptions",
        "WorkerContext",
        "WorkerEvent",
      ]
    `);
  });
});

test('the entry points lead to compiled files', () => {
  const { resolve } = createRequire(import.meta.url);
  const found = ['mbridge', 'mbridge/testing'].map((name) => relative(packageRoot(), resolve(name)));
  expect(found).toEqual(['dist/src/index.js', 'dist/src/testing/run-ranks.js']);
});

describe('the signatures', () => {
  test('errors', () => {
    expectTypeOf<api.MbridgeError>().toExtend<Error>();
    expectTypeOf<api.MbridgeError['code']>().toEqualTypeOf<string>();
    expectTypeOf<api.MbridgeError['exitCode']>().toEqualTypeOf<number>();
    expectTypeOf<api.MbridgeError['hint']>().toEqualTypeOf<string | undefined>();
    expectTypeOf<keyof typeof api.EXIT>().toEqualTypeOf<'ok' | api.ExitKind>();
  });

  test('configurations', () => {
    expectTypeOf(api.resolveConfig).toEqualTypeOf<(sources: api.ConfigSources) => api.RunConfig>();
    expectTypeOf(api.qwen34bPretrainConfig).toEqualTypeOf<(overrides?: api.RecipeOverrides) => api.RunConfig>();
    expectTypeOf(api.findRecipe).toEqualTypeOf<(name: string) => api.Recipe>();
    // A recipe's result is the caller's own: its values may be set.
    const change = (cfg: api.RunConfig): void => {
      cfg.optimizer.lr = 1e-4;
      cfg.train.train_iters = 1;
    };
    expectTypeOf(change).returns.toBeVoid();
    expectTypeOf(api.modelShape).returns.toEqualTypeOf<api.ModelShape>();
    expectTypeOf(api.planRun).returns.toEqualTypeOf<api.RunPlan>();
  });

  test('runs', () => {
    expectTypeOf(api.runDistributed).toEqualTypeOf<(options: api.RunDistributedOptions) => Promise<number>>();
    expectTypeOf(api.pretrain).returns.toEqualTypeOf<Promise<number>>();
    expectTypeOf<api.RunWorker>().toEqualTypeOf<(context: api.WorkerContext) => Promise<void>>();
    expectTypeOf(api.isMain).toEqualTypeOf<(url: string) => boolean>();
    expectTypeOf<api.StepEvent['loss']>().toEqualTypeOf<number>();
  });

  test('grid and groups', () => {
    expectTypeOf(api.HyperCommGrid).toBeConstructibleWith({
      shape: [2, 1],
      dimNames: ['tp', 'dp'],
      rankOffset: 0,
      worldSize: 2,
      backend: 'nccl',
    });
    expectTypeOf<api.ProcessGroupCollection<api.CommGroup>['tp']>().toEqualTypeOf<api.CommGroup>();
    expectTypeOf<api.CommGroup>().toExtend<api.ProcessGroup>();
    expectTypeOf(api.HyperCommGrid).toBeConstructibleWith({
      shape: [2],
      dimNames: ['tp'],
      ranks: [3, 1],
      worldSize: 4,
      backend: 'nccl',
    });
    expectTypeOf(api.setupGroups).returns.resolves.toHaveProperty('pgCollection').toEqualTypeOf<api.Groups>();
  });

  test('ranks of a test', () => {
    expectTypeOf(runRanks<number>).toEqualTypeOf<
      (worldSize: number, module: string | URL, options?: RunRanksOptions) => Promise<number[]>
    >();
    expectTypeOf<RankContext['runtime']>().toEqualTypeOf<api.CommRuntime>();
    expectTypeOf<RankFunction<number, string>>().toEqualTypeOf<
      (context: RankContext<string>) => number | Promise<number>
    >();
  });

  test('a training by hand', () => {
    expectTypeOf(api.openDevice).toEqualTypeOf<(kind: 'cpu' | 'cuda', index: number, threads: number) => api.Device>();
    expectTypeOf(api.provideDistributedModel).toEqualTypeOf<
      (cfg: api.RunConfig, options: api.ProvideModelOptions) => Promise<api.DistributedModel>
    >();
    expectTypeOf<api.DistributedModel['forwardBackward']>().parameter(0).toEqualTypeOf<readonly api.MicroBatch[]>();
    expectTypeOf<api.DistributedOptimizer['step']>().toEqualTypeOf<(wantsStop?: boolean) => void>();
    expectTypeOf(api.train).toEqualTypeOf<(options: api.TrainOptions) => Promise<api.TrainResult>>();
    expectTypeOf(api.openRun).toEqualTypeOf<
      (context: api.WorkerContext, options?: api.OpenRunOptions) => Promise<api.Run>
    >();
    expectTypeOf<api.Run['train']>().toEqualTypeOf<(options?: api.RunTrainOptions) => Promise<api.TrainResult>>();
    expectTypeOf<api.Evaluator['run']>().returns.resolves.toEqualTypeOf<api.Evaluation>();
    expectTypeOf(api.weightedCrossEntropy).returns.toEqualTypeOf<api.Loss>();
    expectTypeOf<api.DataIterator['next']>().toEqualTypeOf<(step: number) => readonly api.MicroBatch[]>();
  });
});

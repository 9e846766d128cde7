import {
  provideDistributedModel,
  setupGroups,
  type DistributedModel,
  type Groups,
  type ProvideModelOptions,
  type Run,
  type RunConfig,
} from '../../src/index.js';
import { ReplicaRows } from './replica-rows.js';

export interface Layout {
  readonly tp: number;
  readonly pp: number;
}

export interface ModelBeside {
  readonly config: RunConfig;
  readonly pgCollection: Groups;
  readonly model: DistributedModel;
  /** What of a batch is its replica's here. */
  readonly rows: ReplicaRows;
}

/** A further model on all ranks of a run, spread in a way of its own: what tp and pp leave are replicas. */
export async function modelBeside(
  run: Run,
  { tp, pp }: Layout,
  options: Omit<ProvideModelOptions, 'pgCollection' | 'device'>,
): Promise<ModelBeside> {
  const { context, device, runtime } = run;
  const layout = { tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp };
  const config = { ...run.config, model: { ...run.config.model, ...layout } };
  const { pgCollection } = await setupGroups(config, { runtime, worldSize: context.worldSize });
  runtime.watch();
  const model = await provideDistributedModel(config, { ...options, pgCollection, device });
  return { config, pgCollection, model, rows: new ReplicaRows(config, pgCollection) };
}

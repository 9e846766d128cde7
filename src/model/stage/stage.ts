import type { DeviceKind } from '../../config/layout.js';
import { resolvePrecision } from '../../config/layout.js';
import { modelShape, type ModelShape } from '../../families/model-shape.js';
import type { RunConfig } from '../../config/schema.js';
import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { Device } from '../../engine/device.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import { Ops } from '../../engine/ops.js';
import { OptimizerState } from '../optim/optimizer-state.js';
import { ParameterBuffer } from '../parameters/parameter-buffer.js';
import { TensorParallel } from '../parallel/tensor-parallel.js';
import { bufferNeeds, type BufferNeeds } from '../pipeline/schedule-buffers.js';
import type { Schedule } from '../pipeline/actions.js';
import { buildSchedule } from '../pipeline/schedule.js';
import { balanceStages, interleavedStageLayers, stageLayers, type StageLayers } from '../pipeline/stages.js';
import { attentionWorkspaceBytes } from '../blocks/attention-workspace.js';
import { tokenFlops } from '../../families/flops.js';
import { ModelChunk } from './model-chunk.js';
import type { Place } from '../parameters/parameter.js';
import { StageEnv } from '../blocks/stage-env.js';
import { layOutStage } from './stage-weights.js';
import { StepData } from './step-data.js';

/** Where a rank stands in its model's grid. */
export interface ModelPlace {
  readonly tp: Place;
  readonly pp: Place;
  readonly dp: Place;
  readonly dpCp: Place;
}

export interface StageOptions {
  cfg: RunConfig;
  place: ModelPlace;
  deviceKind: DeviceKind;
  /** A frozen model has no gradients and no optimizer state. */
  trainable: boolean;
  /** Null while only planning. */
  live: { device: Device; tp: CommGroup } | null;
}

/** A rank's part of a model with its memory planned: what `mbridge plan` prints, and what training runs. */
export interface Stage {
  readonly shape: ModelShape;
  readonly env: StageEnv;
  readonly plan: MemoryPlan;
  readonly buffer: ParameterBuffer;
  readonly chunks: readonly ModelChunk[];
  readonly layers: readonly StageLayers[];
  readonly data: StepData;
  readonly schedule: Schedule;
  readonly evaluation: Schedule;
  readonly optimizer: OptimizerState | null;
}

/** Layers of every chunk of every pipeline rank. */
export function assignLayers(cfg: Pick<RunConfig, 'model'>, shape: ModelShape): StageLayers[] {
  const { model } = cfg;
  const stages = model.pipeline_model_parallel_size;
  const vpp = model.virtual_pipeline_model_parallel_size ?? 1;
  if (vpp > 1) return interleavedStageLayers(shape.numLayers, stages, vpp);
  const { layer, head } = tokenFlops(shape, model.seq_length);
  return stageLayers(
    balanceStages({
      numLayers: shape.numLayers,
      stages,
      layerFlops: layer,
      headFlops: head,
      embeddingFlops: 0,
      first: model.num_layers_in_first_pipeline_stage ?? undefined,
      last: model.num_layers_in_last_pipeline_stage ?? undefined,
    }),
  );
}

/** Builds one rank's stage. Pure but for reading the device's needs: no memory is taken until the plan is committed. */
export function buildStage({ cfg, place, deviceKind, trainable, live }: StageOptions): Stage {
  const shape = modelShape(cfg);
  const { model, train } = cfg;
  const plan = new MemoryPlan();
  const dtype = resolvePrecision(cfg, deviceKind) === 'fp32' ? 'f32' : 'bf16';
  const batch = train.micro_batch_size;
  const seq = model.seq_length;
  const tp = new TensorParallel(place.tp, live?.tp ?? null, model.sequence_parallel);
  const heads = shape.numHeads / tp.size;
  const kvHeads = shape.numKvHeads / tp.size;
  const attention = { batch, seq, heads, kvHeads, headDim: shape.headDim };
  const device = live?.device ?? null;

  const chunksPerRank = model.virtual_pipeline_model_parallel_size ?? 1;
  const microBatches = train.global_batch_size / (batch * place.dp.size);
  const pipeline = { stages: place.pp.size, chunks: chunksPerRank, microBatches };
  const schedule = buildSchedule(pipeline);
  const evaluation = buildSchedule({ ...pipeline, forwardOnly: true });
  const needs = mostOf(bufferNeeds(schedule, place.pp.rank), bufferNeeds(evaluation, place.pp.rank), trainable);

  const all = assignLayers(cfg, shape);
  const layers = all.filter((part) => part.rank === place.pp.rank).sort((a, b) => a.chunk - b.chunk);
  const first = place.pp.rank === 0;
  const last = place.pp.rank === place.pp.size - 1;

  const env = new StageEnv({
    plan,
    ops: device && new Ops(device),
    shape,
    tp,
    batch,
    seq,
    dtype,
    recompute: model.recompute_granularity,
    deterministic: model.deterministic,
    attentionWorkspaceBytes: attentionWorkspaceBytes(device, dtype, attention, model.deterministic),
  });
  const buffer = new ParameterBuffer(plan, { dtype, dp: place.dpCp, trainable });
  const weights = layOutStage(
    buffer,
    shape,
    place.tp,
    tp.sequenceParallel,
    {
      layers: layers.flatMap((part) => Array.from({ length: part.layers }, (_, i) => part.firstLayer + i)),
      embedding: first,
      head: last,
    },
    cfg.ddp.data_parallel_sharding_strategy === 'optim_grads' ? 'shard' : 'whole',
  );
  buffer.finish();
  const data = new StepData(plan, microBatches, env.sizes.tokens);
  const chunks = layers.map(
    ({ chunk, firstLayer, layers: count }) =>
      new ModelChunk(
        env,
        weights,
        { firstLayer, count, embedding: first && chunk === 0, head: last && chunk === chunksPerRank - 1 },
        data,
        needs[chunk] as BufferNeeds,
      ),
  );
  const optimizer = trainable ? new OptimizerState(plan, buffer, isSharded(cfg)) : null;
  return { shape, env, plan, buffer, chunks, layers, data, schedule, evaluation, optimizer };
}

/** Whether optimizer state is sharded over the replicas. */
function isSharded(cfg: RunConfig): boolean {
  return cfg.optimizer.use_distributed_optimizer && cfg.ddp.data_parallel_sharding_strategy !== 'no_shard';
}

function mostOf(training: BufferNeeds[], evaluation: BufferNeeds[], trainable: boolean): BufferNeeds[] {
  if (!trainable) return evaluation;
  return training.map((a, chunk) => {
    const b = evaluation[chunk] as BufferNeeds;
    return {
      inFlight: Math.max(a.inFlight, b.inFlight),
      inputs: Math.max(a.inputs, b.inputs),
      waitingInputs: Math.max(a.waitingInputs, b.waitingInputs),
      waitingGradients: Math.max(a.waitingGradients, b.waitingGradients),
    };
  });
}

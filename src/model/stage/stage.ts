import { MbridgeError } from '../../base/errors.js';
import { BATCH_FIELDS } from '../../data/micro-batch.js';
import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import { Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import { isAdapterParameter } from '../../families/adapters.js';
import { VALUE_HEAD } from '../../families/decoder.js';
import { namedBy } from '../../families/frozen.js';
import type { ModelShape } from '../../families/model-shape.js';
import { attentionWorkspaceBytes } from '../blocks/attention-workspace.js';
import type { Loss, LossFunction } from '../blocks/loss.js';
import { StageEnv } from '../blocks/stage-env.js';
import { Decoder } from '../decode/decoder.js';
import type { GenerationSizes } from '../decode/kv-cache.js';
import { crossEntropy } from '../losses/cross-entropy.js';
import { TokenReader } from '../losses/token-reader.js';
import { valueLoss } from '../losses/value-loss.js';
import { OptimizerState } from '../optim/optimizer-state.js';
import type { Bucket } from '../parameters/bucket.js';
import { ParameterBuffer } from '../parameters/parameter-buffer.js';
import { ContextParallel } from '../parallel/context-parallel.js';
import { TensorParallel } from '../parallel/tensor-parallel.js';
import { bufferNeeds, type BufferNeeds } from '../pipeline/schedule-buffers.js';
import type { Schedule } from '../pipeline/actions.js';
import { buildSchedule } from '../pipeline/schedule.js';
import { StepTotals } from '../totals/step-totals.js';
import { BatchCut } from './batch-cut.js';
import { ModelChunk } from './model-chunk.js';
import { countsLoss, type PartSpec, type StageSpec } from './stage-spec.js';
import { layOutStage, type StageWeights } from './stage-weights.js';
import { StepData } from './step-data.js';

/** What a stage needs to run: null where it is only planned. */
export interface LiveStage {
  readonly device: Device;
  readonly tp: CommGroup;
  readonly cp: CommGroup;
  /** The ranks that hold the same parameters. */
  readonly dpCp: CommGroup;
}

/** A rank's part of a model with its memory planned: what `mbridge plan` prints, and what training runs. */
export interface Stage {
  readonly spec: StageSpec;
  readonly shape: ModelShape;
  readonly env: StageEnv;
  readonly plan: MemoryPlan;
  readonly buffer: ParameterBuffer;
  readonly chunks: readonly ModelChunk[];
  readonly data: StepData;
  readonly totals: StepTotals;
  /** f32 [1], one of the totals: see StepData.pairs. Null where documents are not kept apart. */
  readonly pairs: Tensor | null;
  /** On the last stage. */
  readonly reader: TokenReader | null;
  readonly schedule: Schedule;
  readonly evaluation: Schedule;
  /** Null where nothing is generated. */
  readonly decoder: Decoder | null;
  /** Null where nothing is trained. */
  readonly optimizer: OptimizerState | null;
}

/**
 * Builds one rank's stage. Pure but for reading the device's needs: no memory is taken until the plan is committed.
 * @param loss the same on every rank of the model
 * @param schedules those of {@link stageSchedules}, where they were made for another rank of the same model
 */
export function buildStage(
  spec: StageSpec,
  live: LiveStage | null,
  loss: Loss = defaultLoss(spec),
  { schedule, evaluation }: StageSchedules = stageSchedules(spec),
): Stage {
  const { shape, place, batch, seq, dtype, deterministic } = spec;
  const plan = new MemoryPlan();
  const tp = new TensorParallel(place.tp, live?.tp ?? null, spec.sequenceParallel);
  const cp = new ContextParallel(place.cp, live?.cp ?? null, spec.cpCommType);
  const device = live?.device ?? null;
  const heads = { heads: shape.numHeads / tp.size, kvHeads: shape.numKvHeads / tp.size, headDim: shape.headDim };
  const attention = cp.attention(seq).map((call) => ({ batch, ...call, ...heads, deterministic }));
  // Attention over a cache has a workspace of its own: libraries are not asked for one.
  const asked = spec.microBatches === 0 ? null : device;
  const onlyGenerates = spec.microBatches === 0;
  const env = new StageEnv({
    plan,
    ops: device && new Ops(device, STREAM.compute, spec),
    shape,
    head: spec.head,
    tp,
    cp,
    batch,
    seq,
    dtype,
    recompute: spec.recompute,
    recomputeModules: spec.recomputeModules,
    attention,
    fp8: spec.fp8,
    trains: spec.trainable !== false,
    // A model that only generates never looks at whole sequences.
    attentionWorkspaceBytes: onlyGenerates
      ? 0
      : Math.max(...attention.map((call) => attentionWorkspaceBytes(asked, dtype, call, spec.documents))),
  });
  const { buffer, weights } = layOutParameters(plan, spec, live?.dpCp ?? null);
  // Also where none of a partly frozen model's trained buckets is here: all ranks have the same totals.
  const trains = spec.trainable !== false;
  const totals = new StepTotals(plan, { trainable: trains, countsLoss: countsLoss(place.tp) });
  const countsPairs = [place.tp, place.cp, place.pp].every(({ rank }) => rank === 0);
  const pairs = spec.documents ? totals.reserve(['attention_pairs'], countsPairs) : null;
  const lossFunction = planLoss(loss, env, totals, spec);
  const reader = spec.parts.head ? new TokenReader(env) : null;
  const fields = [...BATCH_FIELDS, ...loss.fields];
  const cut = cp.size === 1 ? null : new BatchCut(cp.tokensOf(batch, seq), batch * seq);
  const data = new StepData(plan, fields, spec.microBatches, {
    tokens: env.sizes.tokens,
    cut,
    documentsIn: spec.documents ? seq : null,
  });

  const needs = mostOf(bufferNeeds(schedule, place.pp.rank), bufferNeeds(evaluation, place.pp.rank), trains);
  const { tokens } = env.sizes;
  const logitsTokens = loss.inParts === true ? partOfTokens(tokens, spec.lossChunkTokens) : tokens;
  const chunks = (onlyGenerates ? [] : spec.layers).map(({ chunk, firstLayer, layers: count }) => {
    const embedding = spec.parts.embedding && chunk === 0;
    const here = chunk === spec.chunks - 1 ? lossFunction : null;
    return new ModelChunk(
      env,
      weights,
      { firstLayer, count, embedding, loss: here, logitsTokens },
      data,
      needs[chunk] as BufferNeeds,
    );
  });
  const optimizer = trains ? new OptimizerState(plan, buffer.buckets, totals, spec.state) : null;
  const decoder = spec.generation === undefined ? null : planDecoder(spec, spec.generation, env, weights, live);
  return {
    spec,
    shape,
    env,
    plan,
    buffer,
    chunks,
    data,
    totals,
    pairs,
    reader,
    schedule,
    evaluation,
    decoder,
    optimizer,
  };
}

/** The order of a step, and of an evaluation: the same on every rank of a model. */
export type StageSchedules = Pick<Stage, 'schedule' | 'evaluation'>;

export function stageSchedules({ place, chunks, microBatches }: StageSpec): StageSchedules {
  // A model that only generates has no micro-batches.
  const pipeline = { stages: place.pp.size, chunks, microBatches: microBatches === 0 ? place.pp.size : microBatches };
  return { schedule: buildSchedule(pipeline), evaluation: buildSchedule({ ...pipeline, forwardOnly: true }) };
}

/**
 * To be called whenever a stage's memory has been taken: opens it to the ranks that read it, and fills what is constant.
 * @param shared groups whose members reach each other's memory, where they can
 */
export function prepareMemory({ plan, env, decoder }: Stage, shared: readonly CommGroup[]): void {
  for (const group of shared) group.share(plan);
  env.prepare();
  decoder?.prepare();
}

/** Lays out a rank's parameters in `plan`. @param group its replicas; null while only planning */
export function layOutParameters(
  plan: MemoryPlan,
  spec: PartSpec,
  group: CommGroup | null,
): { buffer: ParameterBuffer; weights: StageWeights } {
  const { dtype, place, trainable, adapters, gradientType } = spec;
  const frozen = namedBy(spec.frozen);
  // The base of adapters is frozen; a row of values that was never trained would be of no use.
  const trains = (parameter: string): boolean =>
    adapters === null || isAdapterParameter(parameter) || parameter === VALUE_HEAD;
  const buffer = new ParameterBuffer(plan, {
    dtype,
    replicas: place.dpCp,
    gradients: gradientType,
    group,
    trains: (bucket, parameter) =>
      (typeof trainable === 'boolean' ? trainable : bucket.search(trainable) >= 0) &&
      trains(parameter) &&
      !frozen(parameter),
  });
  const weights = layOutStage(
    buffer,
    spec.shape,
    place.tp,
    spec.sequenceParallel,
    spec.parts,
    spec.gradients,
    spec.head,
    adapters,
  );
  buffer.finish();
  return { buffer, weights };
}

/** float32 memory for a bucket's initial values: its gradient, the gradient ring, or what the buffer has. */
export function stagingOf({ optimizer, buffer }: Stage, bucket: Bucket): Tensor {
  if (bucket.grads?.dtype === 'f32') return bucket.grads;
  const slot = bucket.borrows ? optimizer?.ring.slots[0] : undefined;
  return slot?.dtype === 'f32' ? slot.slice(0, bucket.size) : buffer.staging(bucket);
}

function planDecoder(
  spec: StageSpec,
  sizes: GenerationSizes,
  env: StageEnv,
  weights: StageWeights,
  live: LiveStage | null,
): Decoder {
  const { shape, dtype, place, layers: chunks } = spec;
  if (place.cp.size > 1) {
    throw new MbridgeError('config', 'MB_GENERATE_CP', `context_parallel_size is ${place.cp.size}`, {
      hint: 'a model generates without context parallelism: use tensor_model_parallel_size or more replicas',
    });
  }
  const tp = { place: place.tp, group: live?.tp ?? null, sequenceParallel: spec.sequenceParallel };
  const ops = live && env.ops;
  return new Decoder({ plan: env.plan, ops, shape, dtype, weights, chunks, tp, pp: place.pp }, sizes);
}

/** Of equal parts of so many tokens, none larger than `most`, the size: a multiple of 128 where that is no more than `most`. */
function partOfTokens(tokens: number, most: number): number {
  const part = Math.ceil(tokens / Math.ceil(tokens / most));
  return Math.min(most, Math.ceil(part / 128) * 128, tokens);
}

function defaultLoss({ head }: StageSpec): Loss {
  return head === 'value' ? valueLoss() : crossEntropy();
}

/** Every rank reserves the loss's totals; the last stage has the loss. */
function planLoss(loss: Loss, env: StageEnv, totals: StepTotals, { parts }: StageSpec): LossFunction | null {
  const slots = totals.reserve(loss.totals, env.tp.rank === 0);
  if (!parts.head) return null;
  const of = (name: string): Tensor => slots.slice(loss.totals.indexOf(name), 1);
  return loss.plan(env, { lossAndTokens: totals.lossAndTokens, of });
}

function mostOf(training: BufferNeeds[], evaluation: BufferNeeds[], trains: boolean): BufferNeeds[] {
  if (!trains) return evaluation;
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

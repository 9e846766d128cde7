import { resolvePrecision, type DeviceKind, type RunLayout } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import { adaptersOf } from '../families/adapters.js';
import { stepFlops } from '../families/flops.js';
import { modelShape, type ModelShape } from '../families/model-shape.js';
import { linearShapes } from '../families/parameters.js';
import { assignLayers } from '../model/stage/stage-spec.js';
import type { DeviceProfile } from './device-profiles.js';
import { fp8Work, QUANTISED_WEIGHT } from './fp8-times.js';
import { microBatchTimes, plus, sumOf, times, type Times } from './layer-times.js';
import { stateBytes } from './state-bytes.js';
import { linkRates } from './link-rates.js';

/** Milliseconds of a step of the slowest rank; they add up to the step. */
export interface StepParts extends Times {
  /** Reduction of gradients and gathering of parameters, what backward and forward do not hide. */
  readonly dataParallel: number;
  /** The update, and making e4m3 of the new weights. */
  readonly optimizer: number;
  /** For which the slowest stage waits for the others. */
  readonly bubble: number;
}

export interface StepPrediction {
  readonly stepMs: number;
  /** Of all devices. */
  readonly tokensPerSecond: number;
  readonly tokensPerSecondPerDevice: number;
  /** By the formula of the step line. */
  readonly tflopsPerDevice: number;
  /** Of the device's published peak; null where that is not known. */
  readonly mfu: number | null;
  /** The part of the time in which stages, on average, wait: until the pipeline is full, as it drains, and for slower ones. */
  readonly bubble: number;
  readonly parts: StepParts;
}

/** AdamW reaches 3.9 of a copy's 4.3 TB/s. */
const UPDATE_SHARE = 0.9;
/** What collectives that are hidden take from the products beside them: 4B on 2 and on 4 H200s. */
const HIDDEN_SHARE = 0.35;
/** A stage's output goes to the next one in a call of its own. */
const TRANSFER_MS = 0.06;

/**
 * Predicts a step from what it has to do (products, attention, bytes moved, collectives, the update, the schedule) and a
 * device's rates, without the device. It is off by some per cent (test/plan/predict-step.test.ts has the error of each setting that
 * was measured): it ranks settings, and finds their order of magnitude. Pure.
 * @param layout what validateLayout says of `cfg`
 */
export function predictStep(
  cfg: RunConfig,
  layout: RunLayout,
  profile: DeviceProfile,
  device: DeviceKind = 'cuda',
): StepPrediction {
  const { model, train, ddp } = cfg;
  const { tp, cp, dp, pp, vpp, microBatches } = layout;
  const shape = modelShape(cfg);
  const precision = resolvePrecision(cfg, device);
  const fp8 = fp8Work(cfg);
  // Ranks that share a device take turns.
  const share = device === 'cuda' ? cfg.dist.ranks_per_gpu : 1;
  const links = linkRates(layout, { ...profile, perNode: profile.perNode * share });
  const adapters = adaptersOf(cfg.peft);
  const each = microBatchTimes(
    {
      ...{ shape, batch: train.micro_batch_size, seq: model.seq_length, tp, cp, precision },
      fp8,
      ...{ recompute: model.recompute_granularity, recomputeModules: model.recompute_modules },
      deterministic: model.deterministic,
      sequenceParallel: model.sequence_parallel && tp > 1,
      trainsWeights: adapters === null,
    },
    profile,
    links,
  );

  const actBytes = precision === 'fp32' ? 4 : 2;
  const tokens = (train.micro_batch_size * model.seq_length) / cp;
  const sent = (actBytes * tokens * shape.hiddenSize) / (model.sequence_parallel ? tp : 1);
  const transferMs = pp === 1 ? 0 : 2 * vpp * (TRANSFER_MS + (sent * 1e3) / links.pp);
  const layers = assignLayers(model, shape, pp);
  const stages = Array.from({ length: pp }, (_, rank) => {
    const count = layers.filter((part) => part.rank === rank).reduce((sum, part) => sum + part.layers, 0);
    const ends = [...(rank === 0 ? [each.embedding] : []), ...(rank === pp - 1 ? [each.head] : [])];
    const forward = plus(times(count, each.layer.forward), ...ends.map((end) => end.forward));
    const backward = plus(times(count, each.layer.backward), ...ends.map((end) => end.backward));
    const micro = plus(forward, backward, { ...NOTHING, exchanges: transferMs });
    return { count, forwardMs: sumOf(forward), backwardMs: sumOf(backward), micro, ms: sumOf(micro) };
  });
  const slowest = stages.reduce((a, b) => (b.ms > a.ms ? b : a));
  // The others' micro-batches until the slowest has its first, and after its last; interleaved chunks are smaller.
  const waitMs = (stages.reduce((sum, { ms }) => sum + ms, 0) - slowest.ms) / vpp;
  const rank = stages.indexOf(slowest);
  const parameters = localParameters(shape, tp, { ...slowest, first: rank === 0, last: rank === pp - 1, pp });
  const trained = adapters === null ? parameters : 0;
  const sharded = cfg.optimizer.use_distributed_optimizer && ddp.data_parallel_sharding_strategy !== 'no_shard';
  const updated = (trained / (sharded ? dp * cp : 1)) * updateBytes(cfg, actBytes);
  const quantised = fp8 === null ? 0 : fp8.share * layerParameters(shape, tp) * slowest.count * QUANTISED_WEIGHT;
  const optimizer = ((updated + quantised) * 1e3) / (UPDATE_SHARE * profile.memoryGBs * 1e9);
  const comm = dataParallelMs(
    cfg,
    { trained, sharded, ranks: dp * cp, actBytes, bytesPerS: links.dpCp, microBatches },
    slowest,
  );

  const work = times(share * microBatches, slowest.micro);
  const extra = { dataParallel: share * comm, optimizer: share * optimizer, bubble: share * waitMs };
  const parts: StepParts = { ...work, ...extra };
  const stepMs = sumOf(work) + extra.dataParallel + extra.optimizer + extra.bubble;
  const devices = Math.ceil(layout.worldSize / share);
  const tokensPerSecond = (train.global_batch_size * model.seq_length * 1000) / stepMs;
  const tflops = stepFlops(shape, model.seq_length, train.global_batch_size, { adapters }) / (stepMs * devices * 1e9);
  const busy = stages.reduce((sum, { ms }) => sum + ms, 0) * microBatches;
  const piped = slowest.ms * microBatches + waitMs;
  return {
    stepMs,
    tokensPerSecond,
    tokensPerSecondPerDevice: tokensPerSecond / devices,
    tflopsPerDevice: tflops,
    mfu: profile.peakTflops === 0 ? null : tflops / profile.peakTflops,
    bubble: 1 - busy / (pp * piped),
    parts,
  };
}

const NOTHING: Times = { products: 0, attention: 0, memory: 0, calls: 0, exchanges: 0 };

/**
 * Bytes that AdamW moves for a parameter: what it is kept in and the moments, read and written, and the gradient, read for the norm and
 * for the update; and the weight, where that is another one.
 */
function updateBytes(cfg: RunConfig, weight: number): number {
  const { main, moments, gradient } = stateBytes(cfg, weight);
  return 2 * moments + 2 * gradient + (main === 0 ? 2 * weight : 2 * main + weight);
}

function layerParameters(shape: ModelShape, tp: number): number {
  const linears = linearShapes(shape, tp).slice(0, -1);
  return linears.reduce((sum, { inputs, outputs }) => sum + inputs * outputs, 0);
}

/** Parameters of a pipeline rank: matrices alone, beside which norms and biases are nothing. */
function localParameters(
  shape: ModelShape,
  tp: number,
  stage: { readonly count: number; readonly first: boolean; readonly last: boolean; readonly pp: number },
): number {
  const layer = layerParameters(shape, tp);
  const vocabulary = Math.ceil(shape.vocabSize / tp) * shape.hiddenSize;
  const owns = Number(stage.first) + Number(stage.last && (stage.pp > 1 || !shape.tieWordEmbeddings));
  return stage.count * layer + owns * vocabulary;
}

/** What the replicas exchange for an update and work does not hide. */
function dataParallelMs(
  cfg: RunConfig,
  comm: {
    readonly trained: number;
    readonly sharded: boolean;
    readonly ranks: number;
    readonly actBytes: number;
    readonly bytesPerS: number;
    readonly microBatches: number;
  },
  { forwardMs, backwardMs }: { readonly forwardMs: number; readonly backwardMs: number },
): number {
  if (comm.ranks === 1) return 0;
  const ms = (bytes: number): number => (comm.trained * bytes * (comm.ranks - 1) * 1e3) / comm.ranks / comm.bytesPerS;
  const exposed = (of: number, window: number, overlaps: boolean): number =>
    overlaps ? HIDDEN_SHARE * Math.min(of, window) + Math.max(0, of - window) : of;
  const { ddp } = cfg;
  const { gradient } = stateBytes(cfg, comm.actBytes);
  const reduce = ms(comm.sharded ? gradient : 2 * gradient);
  const gather = comm.sharded ? ms(comm.actBytes) : 0;
  // A ring of gradients is reduced with every micro-batch.
  const rounds = ddp.data_parallel_sharding_strategy === 'optim_grads' ? comm.microBatches : 1;
  return (
    rounds * exposed(reduce, backwardMs, ddp.overlap_grad_reduce || rounds > 1) +
    exposed(gather, forwardMs, ddp.overlap_param_gather)
  );
}

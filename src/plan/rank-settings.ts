import { resolvePrecision, type DeviceKind } from '../config/layout.js';
import { modelShape } from '../families/model-shape.js';
import { linearShapes } from '../families/parameters.js';
import { stageSchedules, type StageSchedules } from '../model/stage/stage.js';
import type { StageSpec } from '../model/stage/stage-spec.js';
import { planRun, type RunPlan } from '../train/plan.js';
import type { DeviceProfile } from './device-profiles.js';
import { fp8Layers } from './fp8-times.js';
import { stateBytes } from './state-bytes.js';
import { predictStep, type StepPrediction } from './predict-step.js';
import { recomputeLevel, type Candidate, type Sharding } from './settings.js';

export interface RankedSetting extends Candidate {
  readonly prediction: StepPrediction;
  /** Of the fullest device; on a CPU of all processes. */
  readonly neededBytes: number;
}

/** What of a plan is held against `usableBytes`. */
export interface MemoryLimit {
  readonly usableBytes: number;
  readonly neededBytes: (plan: RunPlan, candidate: Candidate) => number;
}

export interface Ranking {
  /** The fastest that fit, by the prediction. */
  readonly fitting: RankedSetting[];
  /** Of those that were planned and do not fit, the one that needs least. */
  readonly smallest: RankedSetting | null;
  /** How many were planned, of how many. */
  readonly planned: number;
  readonly considered: number;
}

/**
 * The fastest settings that fit. All are predicted, which takes microseconds; from the fastest on they are planned, which may take a
 * second, until `count` fit. What a setting holds at the least, or another one that holds less and did not fit, spares a plan; so
 * does one that fits and differs only in saving less.
 * @param pause between two plans, for signals; the search ends where it says so
 */
export async function rankSettings(
  candidates: readonly Candidate[],
  profile: DeviceProfile,
  device: DeviceKind,
  limit: MemoryLimit,
  count: number,
  pause: () => Promise<boolean>,
): Promise<Ranking> {
  const predicted = candidates
    .map((candidate) => {
      return { ...candidate, prediction: predictStep(candidate.config, candidate.layout, profile, device) };
    })
    .sort((a, b) => a.prediction.stepMs - b.prediction.stepMs);
  const schedulesOf = cachedSchedules();
  const fitting: RankedSetting[] = [];
  const tooLarge: RankedSetting[] = [];
  let planned = 0;
  const plan = (candidate: (typeof predicted)[number]): void => {
    const found = planRun(candidate.config, candidate.layout.worldSize, device, { schedulesOf });
    const ranked = { ...candidate, neededBytes: limit.neededBytes(found, candidate) };
    planned++;
    (ranked.neededBytes <= limit.usableBytes ? fitting : tooLarge).push(ranked);
  };
  for (const candidate of predicted) {
    if (fitting.length === count || (await pause())) break;
    if (leastBytes(candidate, device) > limit.usableBytes || tooLarge.some((other) => holdsMore(candidate, other)))
      continue;
    if (fitting.some((other) => savesNeedlessly(candidate, other))) continue;
    plan(candidate);
  }
  if (fitting.length === 0 && predicted.length > 0) {
    // For who asks how much is missing.
    const least = predicted.reduce((x, y) => (leastBytes(y, device) < leastBytes(x, device) ? y : x));
    if (!(await pause())) plan(least);
  }
  const smallest = tooLarge.reduce<RankedSetting | null>(
    (least, each) => (least === null || each.neededBytes < least.neededBytes ? each : least),
    null,
  );
  return { fitting, smallest, planned, considered: candidates.length };
}

/** Whether a setting holds at least what another does: the same but for a larger micro-batch or less recompute. */
function holdsMore({ setting: a }: Candidate, { setting: b }: Candidate): boolean {
  const same = a.tp === b.tp && a.cp === b.cp && a.pp === b.pp && a.vpp === b.vpp && a.sharding === b.sharding;
  return same && a.microBatch >= b.microBatch && recomputeLevel(a) <= recomputeLevel(b);
}

/** Whether a setting is another that fits, but for saving memory, which only takes time. */
function savesNeedlessly({ setting: a }: Candidate, { setting: b }: Candidate): boolean {
  const same = a.tp === b.tp && a.cp === b.cp && a.pp === b.pp && a.vpp === b.vpp && a.microBatch === b.microBatch;
  const sharded = (sharding: Sharding): number => Number(sharding === 'optim_grads');
  return same && recomputeLevel(a) >= recomputeLevel(b) && sharded(a.sharding) >= sharded(b.sharding);
}

/** Schedules depend on little, and those of many micro-batches take long to make. */
function cachedSchedules(): (spec: StageSpec) => StageSchedules {
  const known = new Map<string, StageSchedules>();
  return (spec) => {
    const key = `${spec.place.pp.size} ${spec.chunks} ${spec.microBatches}`;
    const schedules = known.get(key) ?? stageSchedules(spec);
    known.set(key, schedules);
    return schedules;
  };
}

/** What the fullest rank holds at the least: the state of its layers, and what it keeps of a layer of each micro-batch in flight. */
function leastBytes({ config, layout, setting }: Candidate, device: DeviceKind): number {
  const { tp, cp, dp, pp } = layout;
  const shape = modelShape(config);
  const size = resolvePrecision(config, device) === 'fp32' ? 4 : 2;
  const inLayer = linearShapes(shape, tp).slice(0, -1);
  const ofLayer = inLayer.reduce((sum, { inputs, outputs }) => sum + inputs * outputs, 0);
  const layers = Math.ceil(shape.numLayers / pp);
  // Balanced stages at the ends may have fewer, never all of them.
  const isTrained = config.peft.type === 'none' && config.optimizer.frozen_parameters.length === 0;
  const parameters = isTrained ? ofLayer * (layers - 1) : 0;
  const { main, moments, gradient } = stateBytes(config, size);
  const gradients = setting.sharding === 'optim_grads' ? gradient / (dp * cp) : gradient;
  const state = parameters * (size + gradients + (main + moments) / (dp * cp));
  // Twice in e4m3, a byte an element, beside the weights.
  const copies = config.mixed_precision === 'fp8_mixed' ? 2 * ofLayer * fp8Layers(config.model, layers - 1) : 0;
  const tokens = (setting.microBatch * config.model.seq_length) / cp;
  const [qkv = 0, gateUp = 0] = [inLayer[0]?.outputs, inLayer[2]?.outputs];
  const level = recomputeLevel(setting);
  const kept = level === 3 ? shape.hiddenSize / tp : qkv + (level === 2 ? 0 : gateUp);
  const inFlight = Math.min(pp, layout.microBatches);
  return state + copies + tokens * size * kept * (layers - 1) * (pp === 1 ? 1 : inFlight);
}

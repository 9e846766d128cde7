import type { RunConfig } from '../../config/schema.js';
import type { StepEvent } from '../../job/shared/messages.js';
import { floorMs, type ProfiledCalls } from './step-profile.js';
import type { MemoryEvent, ProfileEvent } from './step-worker.js';
import { summarize, type Timing } from '../device/timer.js';
import { eventsOf, type BenchEvent } from './worker-events.js';

/** Time against the least that the device needs; that is null for what is between ranks. */
export interface FlooredTime {
  readonly calls: number;
  readonly ms: number;
  readonly floorMs: number | null;
}

/** Where a profiled step went, of one rank a pipeline stage: the others do the same work. */
export interface StageProfile {
  readonly rank: number;
  readonly stage: number;
  /** By call, the longest first. */
  readonly calls: readonly (ProfiledCalls & FlooredTime)[];
  /** By what calls are for, the longest first. */
  readonly kinds: readonly (FlooredTime & { readonly kind: string })[];
  /** Milliseconds of all calls, one after the other. */
  readonly ms: number;
  /** Of that, on the device, and the floor of these. */
  readonly deviceMs: number;
  readonly floorMs: number;
}

/** The steps of a run after its warm-up; rates are those of the median step, by device. */
export interface StepSummary {
  readonly timing: Timing;
  readonly tokensPerSecond: number;
  readonly tflops: number;
  /** Of the device; 0 where it is not known. */
  readonly peakTflops: number;
  /** Of the last step. */
  readonly loss: number;
  /** When the first step was reported, in seconds since the command began. */
  readonly firstStepAt: number | null;
  readonly memory: readonly MemoryEvent[];
  readonly profiles: readonly StageProfile[];
}

/** What calls are for, by their names. */
const KINDS: readonly (readonly [string, RegExp])[] = [
  ['products', /^gemm/],
  ['attention', /^attention/],
  ['norms and rotation', /^(add_)?rmsnorm|^qknorm|^rope/],
  ['activation', /^swiglu/],
  ['quantisation', /^fp8_/],
  ['loss', /^ce_/],
  ['embedding', /^embed/],
  ['optimizer', /^(adamw|sumsq|optimizer)/],
];

function kindOf(call: ProfiledCalls): string {
  if (call.communication) return 'between ranks';
  return KINDS.find(([, pattern]) => pattern.test(call.name))?.[0] ?? 'copies and the rest';
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Of calls together; null where any of them is between ranks. */
function floorOf(calls: readonly FlooredTime[]): number | null {
  return calls.some((call) => call.floorMs === null) ? null : sum(calls.map((call) => call.floorMs ?? 0));
}

/** Summarizes what the ranks of a run of `mbridge bench step` reported; rates are given by `devices`. */
export function summarizeSteps(
  cfg: RunConfig,
  devices: number,
  events: readonly BenchEvent[],
  warmup: number,
): StepSummary {
  const steps = eventsOf<StepEvent>(events, 'step');
  const timed = steps.slice(warmup);
  const timing = summarize(timed.map(({ step_time_ms: ms }) => ms));
  const { global_batch_size: batch } = cfg.train;
  const { seq_length: seq } = cfg.model;
  const last = timed.at(-1);
  return {
    timing,
    tokensPerSecond: (batch * seq * 1000) / timing.median / devices,
    // Updates over documents differ in their work.
    tflops:
      sum(timed.map(({ tflops_per_device: rate = 0, step_time_ms: ms }) => rate * ms)) / timed.length / timing.median,
    peakTflops: last?.mfu === undefined || last.tflops_per_device === undefined ? 0 : last.tflops_per_device / last.mfu,
    loss: last?.loss ?? NaN,
    firstStepAt: steps[0]?.at ?? null,
    memory: eventsOf<MemoryEvent>(events, 'memory').sort((a, b) => a.rank - b.rank),
    profiles: eventsOf<ProfileEvent>(events, 'profile')
      .filter(({ coordinates: { tp, cp, dp } }) => tp === 0 && cp === 0 && dp === 0)
      .sort((a, b) => a.rank - b.rank)
      .map(stageProfile),
  };
}

function stageProfile({ rank, coordinates, calls, ceilings }: ProfileEvent): StageProfile {
  const floored = calls.map((call) => ({ ...call, floorMs: call.communication ? null : floorMs(call, ceilings) }));
  const kinds = [...new Set(calls.map(kindOf))].map((kind) => {
    const own = floored.filter((call) => kindOf(call) === kind);
    return { kind, calls: sum(own.map((call) => call.calls)), ms: sum(own.map(({ ms }) => ms)), floorMs: floorOf(own) };
  });
  const onDevice = floored.filter(({ communication }) => !communication);
  return {
    rank,
    stage: coordinates['pp'] ?? 0,
    calls: floored,
    kinds: kinds.sort((a, b) => b.ms - a.ms),
    ms: sum(calls.map(({ ms }) => ms)),
    deviceMs: sum(onDevice.map(({ ms }) => ms)),
    floorMs: floorOf(onDevice) ?? 0,
  };
}

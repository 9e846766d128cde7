import { stepFlops } from '../model/flops.js';
import { modelShape } from '../config/model-shape.js';
import type { RunConfig } from '../config/schema.js';
import type { StepEvent } from '../run/messages.js';
import type { CommEvent } from './comm-worker.js';
import type { BenchReport } from './report.js';
import { percent, round, type Row } from './session.js';
import { floorMs, type ProfiledCalls } from './step-profile.js';
import type { MemoryEvent, ProfileEvent } from './step-worker.js';
import { summarize } from './timer.js';

type Findings = Pick<BenchReport, 'tables' | 'notes'>;
type Events = readonly { readonly type: string; readonly at: number; readonly [key: string]: unknown }[];

/** Bytes as `64 KiB`. */
export function sizeText(bytes: number): string {
  const unit = bytes >= 2 ** 30 ? 30 : bytes >= 2 ** 20 ? 20 : 10;
  return `${round(bytes / 2 ** unit)} ${{ 10: 'KiB', 20: 'MiB', 30: 'GiB' }[unit]}`;
}

export function commFindings(events: Events, nproc: number): Findings {
  const rows = events
    .filter(({ type }) => type === 'comm')
    .map((each): Row => {
      const event = each as unknown as CommEvent;
      return {
        collective: event.collective,
        size: sizeText(event.bytes),
        ms: round(event.median),
        range: `${round(event.min)}-${round(event.max)}`,
        'bus GB/s': round(event.busGBs),
      };
    });
  const bus =
    'size: of the whole buffer; bus: what each rank sends at least, in one direction, over the time on rank 0';
  return { tables: [{ title: `collectives over ${nproc} ranks`, rows }], notes: [bus] };
}

/** Median, range and rates of the steps after warm-up; where time goes, where it was profiled. */
export function stepFindings(cfg: RunConfig, nproc: number, events: Events, warmup: number): Findings {
  const steps = events.filter(({ type }) => type === 'step') as unknown as (StepEvent & { at: number })[];
  const timed = steps.slice(warmup);
  const timing = summarize(timed.map(({ step_time_ms: ms }) => ms));
  const { global_batch_size: batch, micro_batch_size: microBatch } = cfg.train;
  const { seq_length: seq } = cfg.model;
  const tflops = stepFlops(modelShape(cfg), seq, batch) / timing.median / nproc / 1e9;
  const last = timed.at(-1);
  const peak = last?.mfu === undefined || last.tflops_per_gpu === undefined ? 0 : last.tflops_per_gpu / last.mfu;
  const model = cfg.model;
  const layout = `tp ${model.tensor_model_parallel_size}, pp ${model.pipeline_model_parallel_size}`;
  const row: Row = {
    ranks: nproc,
    layout,
    seq,
    'global batch': batch,
    'micro-batch': microBatch,
    'ms a step': round(timing.median),
    range: `${round(timing.min)}-${round(timing.max)}`,
    'tokens/s/GPU': Math.round((batch * seq * 1000) / timing.median / nproc),
    'TFLOP/s/GPU': round(tflops),
    ...(peak === 0 ? {} : { 'MFU %': percent(tflops, peak) }),
    loss: last === undefined ? NaN : Number(last.loss.toFixed(4)),
  };
  const first = steps[0]?.at;
  return {
    tables: [
      { title: `steps: median of ${timed.length} after ${warmup}`, rows: [row] },
      ...memoryTable(events),
      ...callTables(events),
      ...kindTables(events),
    ],
    notes: [
      ...(first === undefined ? [] : [`first step reported ${first.toFixed(2)} s after this command began`]),
      ...profileNotes(events, timing.median),
    ],
  };
}

function memoryTable(events: Events): BenchReport['tables'] {
  const rows = (events.filter(({ type }) => type === 'memory') as unknown as MemoryEvent[])
    .sort((a, b) => a.rank - b.rank)
    .map(({ rank, plannedBytes, usedBytes, attention }): Row => ({
      rank,
      'planned GiB': round(plannedBytes / 2 ** 30),
      'used on the device GiB': round(usedBytes / 2 ** 30),
      attention,
    }));
  return rows.length === 0 ? [] : [{ title: 'memory', rows }];
}

/** One profile a pipeline stage: the other ranks do the same work. */
function shownProfiles(events: Events): ProfileEvent[] {
  const profiles = events.filter(({ type }) => type === 'profile') as unknown as ProfileEvent[];
  return profiles
    .filter(({ coordinates: { tp, cp, dp } }) => tp === 0 && cp === 0 && dp === 0)
    .sort((a, b) => a.rank - b.rank);
}

/** What calls are for, by their names. */
const KINDS: readonly (readonly [string, RegExp])[] = [
  ['products', /^gemm/],
  ['attention', /^attention/],
  ['norms and rotation', /^(add_)?rmsnorm|^qknorm|^rope/],
  ['activation', /^swiglu/],
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

/** Milliseconds against the floor, by what they are spent on. */
function kindTables(events: Events): BenchReport['tables'] {
  return shownProfiles(events).map(({ rank, coordinates, calls, ceilings }) => {
    const kinds = [...new Set(calls.map(kindOf))].map((kind) => {
      const own = calls.filter((call) => kindOf(call) === kind);
      const floor = own.some(({ communication }) => communication)
        ? undefined
        : sum(own.map((call) => floorMs(call, ceilings)));
      return { kind, calls: sum(own.map((call) => call.calls)), ms: sum(own.map((call) => call.ms)), floor };
    });
    return {
      title: `one step by what it is for, rank ${rank} (stage ${coordinates['pp'] ?? 0})`,
      rows: kinds
        .sort((a, b) => b.ms - a.ms)
        .map(({ kind, calls: count, ms, floor }) => ({
          kind,
          calls: count,
          ms: round(ms),
          'floor ms': floor === undefined ? '' : round(floor),
          'over floor ms': floor === undefined ? '' : round(ms - floor),
        })),
    };
  });
}

function callTables(events: Events): BenchReport['tables'] {
  return shownProfiles(events).map(({ rank, coordinates, calls, ceilings }) => ({
    title: `one step call by call, rank ${rank} (stage ${coordinates['pp'] ?? 0})`,
    rows: calls.map((call): Row => {
      const floor = call.communication ? undefined : floorMs(call, ceilings);
      return {
        call: call.name,
        calls: call.calls,
        ms: round(call.ms),
        'floor ms': floor === undefined ? '' : round(floor),
        'over floor ms': floor === undefined ? '' : round(call.ms - floor),
        'GB/s': round(call.bytes / call.ms / 1e6),
        'TFLOP/s': call.flops === 0 ? '' : round(call.flops / call.ms / 1e9),
      };
    }),
  }));
}

function profileNotes(events: Events, stepMs: number): string[] {
  const notes = shownProfiles(events).map(({ rank, calls, ceilings }) => {
    const own = calls.filter(({ communication }) => !communication);
    const total = sum(calls.map(({ ms }) => ms));
    const computing = sum(own.map(({ ms }) => ms));
    const floor = sum(own.map((call) => floorMs(call, ceilings)));
    return (
      `rank ${rank}: calls ${round(total)} ms one after the other, of which ${round(computing)} on the device ` +
      `(floor ${round(floor)}) and ${round(total - computing)} between ranks; a step takes ${round(stepMs)}`
    );
  });
  const how = 'the profiled step serialises all calls: its sum has no overlap, and waiting for other ranks counts';
  return notes.length === 0 ? [] : [...notes, how];
}

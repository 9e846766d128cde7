import type { CommEvent } from '../../bench/run/comm-worker.js';
import type { FlooredTime, StageProfile, StepSummary } from '../../bench/run/step-summary.js';
import type { MemoryEvent } from '../../bench/run/step-worker.js';
import type { RunConfig } from '../../config/schema.js';
import { percent, round, timeOf } from './numbers.js';
import type { Findings, Row, Table } from './report.js';

/** Collectives at every size, as a table. */
export function commFindings(events: readonly CommEvent[], nproc: number): Findings {
  const rows = events.map((event): Row => ({
    collective: event.collective,
    buffer_bytes: event.bytes,
    ...timeOf(event),
    bus_gb_per_s: round(event.busGBs),
  }));
  const bus = 'buffer: the whole of it; bus: what each rank sends at least, in one direction, over the time on rank 0';
  return { tables: [{ table: 'collectives', title: `collectives over ${nproc} ranks`, rows }], notes: [bus] };
}

/** Steps after warm-up, memory, and where time goes, where it was profiled, as tables. */
export function stepFindings(cfg: RunConfig, nproc: number, summary: StepSummary, warmup: number): Findings {
  const { timing, tokensPerSecond, tflops, peakTflops, loss, firstStepAt, profiles } = summary;
  const { model, train } = cfg;
  const row: Row = {
    ranks: nproc,
    tp: model.tensor_model_parallel_size,
    pp: model.pipeline_model_parallel_size,
    seq_length: model.seq_length,
    global_batch_size: train.global_batch_size,
    micro_batch_size: train.micro_batch_size,
    ...timeOf(timing, 'step'),
    tokens_per_s_per_device: Math.round(tokensPerSecond),
    tflop_per_s_per_device: round(tflops),
    ...(peakTflops === 0 ? {} : { mfu_percent: percent(tflops, peakTflops) }),
    loss: Number(loss.toFixed(4)),
  };
  return {
    tables: [
      { table: 'steps', title: `steps: median of ${timing.samples} after ${warmup}`, rows: [row] },
      ...(summary.memory.length === 0 ? [] : [memoryTable(summary.memory)]),
      ...profiles.map(callTable),
      ...profiles.map(kindTable),
    ],
    notes: [
      ...(firstStepAt === null ? [] : [`first step reported ${firstStepAt.toFixed(2)} s after this command began`]),
      ...profiles.map((profile) => profileNote(profile, timing.median)),
      ...(profiles.length === 0 ? [] : [SERIALISED]),
    ],
  };
}

const SERIALISED = 'the profiled step serialises all calls: its sum has no overlap, and waiting for other ranks counts';

function memoryTable(events: readonly MemoryEvent[]): Table {
  const rows = events.map(({ rank, plannedBytes, usedBytes, attention }): Row => ({
    rank,
    planned_bytes: plannedBytes,
    used_bytes: usedBytes,
    attention,
  }));
  return { table: 'memory', title: 'memory, used: of the device', rows };
}

function timeColumns({ calls, ms, floorMs }: FlooredTime): Row {
  return {
    calls,
    time_ms: round(ms),
    floor_ms: floorMs === null ? null : round(floorMs),
    over_floor_ms: floorMs === null ? null : round(ms - floorMs),
  };
}

function callTable({ rank, stage, calls }: StageProfile): Table {
  const rows = calls.map((call): Row => ({
    call: call.name,
    ...timeColumns(call),
    gb_per_s: round(call.bytes / call.ms / 1e6),
    tflop_per_s: call.flops === 0 ? null : round(call.flops / call.ms / 1e9),
  }));
  return { table: 'calls', title: `one step call by call, rank ${rank} (stage ${stage})`, rows };
}

function kindTable({ rank, stage, kinds }: StageProfile): Table {
  const rows = kinds.map((each): Row => ({ kind: each.kind, ...timeColumns(each) }));
  return { table: 'kinds', title: `one step by what it is for, rank ${rank} (stage ${stage})`, rows };
}

function profileNote({ rank, ms, deviceMs, floorMs }: StageProfile, stepMs: number): string {
  return (
    `rank ${rank}: calls ${round(ms)} ms one after the other, of which ${round(deviceMs)} on the device ` +
    `(floor ${round(floorMs)}) and ${round(ms - deviceMs)} between ranks; a step takes ${round(stepMs)}`
  );
}

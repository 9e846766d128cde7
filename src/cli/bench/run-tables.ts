import type { CommEvent } from '../../bench/run/comm-worker.js';
import type { FlooredTime, StageProfile, StepSummary } from '../../bench/run/step-summary.js';
import type { MemoryEvent } from '../../bench/run/step-worker.js';
import type { RunConfig } from '../../config/schema.js';
import { percent, rangeText, round, sizeText } from './numbers.js';
import type { Findings, Row, Table } from './report.js';

/** Collectives at every size, as a table. */
export function commFindings(events: readonly CommEvent[], nproc: number): Findings {
  const rows = events.map((event): Row => ({
    collective: event.collective,
    size: sizeText(event.bytes),
    ms: round(event.median),
    range: rangeText(event),
    'bus GB/s': round(event.busGBs),
  }));
  const bus =
    'size: of the whole buffer; bus: what each rank sends at least, in one direction, over the time on rank 0';
  return { tables: [{ title: `collectives over ${nproc} ranks`, rows }], notes: [bus] };
}

/** Steps after warm-up, memory, and where time goes, where it was profiled, as tables. */
export function stepFindings(cfg: RunConfig, nproc: number, summary: StepSummary, warmup: number): Findings {
  const { timing, tokensPerSecond, tflops, peakTflops, loss, firstStepAt, profiles } = summary;
  const { model, train } = cfg;
  const row: Row = {
    ranks: nproc,
    layout: `tp ${model.tensor_model_parallel_size}, pp ${model.pipeline_model_parallel_size}`,
    seq: model.seq_length,
    'global batch': train.global_batch_size,
    'micro-batch': train.micro_batch_size,
    'ms a step': round(timing.median),
    range: rangeText(timing),
    'tokens/s/GPU': Math.round(tokensPerSecond),
    'TFLOP/s/GPU': round(tflops),
    ...(peakTflops === 0 ? {} : { 'MFU %': percent(tflops, peakTflops) }),
    loss: Number(loss.toFixed(4)),
  };
  return {
    tables: [
      { title: `steps: median of ${timing.samples} after ${warmup}`, rows: [row] },
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
    'planned GiB': round(plannedBytes / 2 ** 30),
    'used on the device GiB': round(usedBytes / 2 ** 30),
    attention,
  }));
  return { title: 'memory', rows };
}

function timeColumns({ calls, ms, floorMs }: FlooredTime): Row {
  return {
    calls,
    ms: round(ms),
    'floor ms': floorMs === null ? '' : round(floorMs),
    'over floor ms': floorMs === null ? '' : round(ms - floorMs),
  };
}

function callTable({ rank, stage, calls }: StageProfile): Table {
  const rows = calls.map((call): Row => ({
    call: call.name,
    ...timeColumns(call),
    'GB/s': round(call.bytes / call.ms / 1e6),
    'TFLOP/s': call.flops === 0 ? '' : round(call.flops / call.ms / 1e9),
  }));
  return { title: `one step call by call, rank ${rank} (stage ${stage})`, rows };
}

function kindTable({ rank, stage, kinds }: StageProfile): Table {
  const rows = kinds.map((each): Row => ({ kind: each.kind, ...timeColumns(each) }));
  return { title: `one step by what it is for, rank ${rank} (stage ${stage})`, rows };
}

function profileNote({ rank, ms, deviceMs, floorMs }: StageProfile, stepMs: number): string {
  return (
    `rank ${rank}: calls ${round(ms)} ms one after the other, of which ${round(deviceMs)} on the device ` +
    `(floor ${round(floorMs)}) and ${round(ms - deviceMs)} between ranks; a step takes ${round(stepMs)}`
  );
}

/** The files of a run's folder that tell its course, a JSON object a line. */
export const TRACE_FILES = {
  metrics: 'metrics.ndjson',
  samples: 'samples.ndjson',
  ranks: 'rank-times.ndjson',
} as const;

export type TraceFile = keyof typeof TRACE_FILES;

/** Numbers of an update that are drawn. */
export const STEP_KEYS = [
  'loss',
  'grad_norm',
  'lr',
  'tokens_per_s_per_device',
  'mfu',
  'memory_bytes',
  'step_time_ms',
  'data_ms',
] as const;

export type StepKey = (typeof STEP_KEYS)[number];

/** One update. Absent is what its line did not tell, null what was no finite number. */
export interface StepPoint extends Partial<Record<StepKey, number | null>> {
  readonly type: 'step';
  readonly step: number;
  /** Unix milliseconds. */
  readonly time?: number;
  readonly eta_s?: number;
  readonly skipped?: true;
}

export interface EvaluationPoint {
  readonly type: 'evaluation';
  readonly step: number;
  readonly set: string;
  readonly loss: number | null;
}

export interface LossWarning {
  readonly type: 'loss_warning';
  readonly step: number;
  readonly kind: string;
  readonly loss: number | null;
  readonly usual: number | null;
}

export interface Sample {
  readonly type: 'sample';
  readonly step: number;
  readonly prompt: string;
  readonly text: string;
}

/** Milliseconds of each rank's own work in an update, over the updates up to `step`. */
export interface RankTimes {
  readonly type: 'ranks';
  readonly step: number;
  readonly ms: readonly number[];
  /** Pipeline stage of each rank; absent where there is one. */
  readonly stages?: readonly number[];
}

export interface StragglerRecord {
  readonly type: 'straggler';
  readonly step: number;
  /** Empty where none is slow any more. */
  readonly ranks: readonly { readonly rank: number; readonly ms: number; readonly median_ms: number }[];
}

export type TraceEvent = StepPoint | EvaluationPoint | LossWarning | Sample | RankTimes | StragglerRecord;

type Line = Readonly<Record<string, unknown>>;

/** What a line of a run's file tells, in types that hold whatever stands in it; null for what is not drawn. */
export function readTraceLine(file: TraceFile, text: string): TraceEvent | null {
  let line: unknown;
  try {
    line = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof line !== 'object' || line === null) return null;
  const fields = line as Line;
  if (typeof fields['step'] !== 'number' || !Number.isFinite(fields['step'])) return null;
  if (file === 'metrics') return readMetric(fields, fields['step']);
  if (file === 'samples') return readSample(fields, fields['step']);
  return readRanks(fields, fields['step']);
}

function readMetric(line: Line, step: number): TraceEvent | null {
  if (line['type'] === 'step') return readStep(line, step);
  const loss = finite(line['loss']);
  if (line['type'] === 'evaluation') return { type: 'evaluation', step, set: words(line['set']), loss };
  if (line['type'] !== 'loss_warning') return null;
  return { type: 'loss_warning', step, kind: words(line['kind']), loss, usual: finite(line['usual']) };
}

function readStep(line: Line, step: number): StepPoint {
  const numbers = STEP_KEYS.flatMap((key) => (key in line ? [[key, finite(line[key])] as const] : []));
  const time = typeof line['time'] === 'string' ? Date.parse(line['time']) : NaN;
  const eta = finite(line['eta_s']);
  return {
    ...{ type: 'step', step, ...Object.fromEntries(numbers) },
    ...(Number.isFinite(time) ? { time } : {}),
    ...(eta === null ? {} : { eta_s: eta }),
    ...(line['skipped'] === true ? { skipped: true } : {}),
  };
}

function readSample(line: Line, step: number): Sample {
  return { type: 'sample', step, prompt: words(line['prompt']), text: words(line['text']) };
}

function readRanks(line: Line, step: number): RankTimes | StragglerRecord | null {
  if (line['type'] === 'straggler' && Array.isArray(line['ranks'])) {
    const ranks = (line['ranks'] as (Line | null)[]).flatMap((one) => {
      const [rank, ms, median] = ['rank', 'ms', 'median_ms'].map((key) => finite(one?.[key]));
      return rank == null || ms == null || median == null ? [] : [{ rank, ms, median_ms: median }];
    });
    return { type: 'straggler', step, ranks };
  }
  const ms = numbersOf(line['ms']);
  const stages = numbersOf(line['stages']);
  if (ms === null) return null;
  return { type: 'ranks', step, ms, ...(stages?.length === ms.length ? { stages } : {}) };
}

function finite(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

function words(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function numbersOf(value: unknown): number[] | null {
  return Array.isArray(value) && value.every((each) => finite(each) !== null) ? (value as number[]) : null;
}

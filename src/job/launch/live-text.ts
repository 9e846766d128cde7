import { formatBytes, formatCount, formatDuration } from '../../base/format-amount.js';
import type { StepEvent } from '../shared/messages.js';

const BAR = 20;

/** What {@link liveText} tells of. */
export interface LiveFacts {
  totalSteps: number;
  /** The last that was shown; undefined before the first. */
  step: StepEvent | undefined;
  /** The last validation loss. */
  validation: number | undefined;
  /** Since the start, and since the last step. */
  seconds: number;
  sinceStep: number;
}

/** How far a run is, in as much of a line as there is room for: time left first, then what else is known. */
export function liveText({ totalSteps, step, validation, seconds, sinceStep }: LiveFacts, columns: number): string {
  if (step === undefined) return `starting, ${formatDuration(seconds)}`;
  const part = Math.min(1, step.step / totalSteps);
  const full = Math.round(part * BAR);
  const left = step.eta_s === undefined ? [] : [`${formatDuration(Math.max(0, step.eta_s - sinceStep))} left`];
  const cells = [
    `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}] ${String(Math.floor(part * 100)).padStart(3)} %`,
    ...(step.step >= totalSteps ? ['ending'] : left),
    ...(step.tokens_seen === undefined ? [] : [`${formatCount(step.tokens_seen)} tokens`]),
    ...(validation === undefined ? [] : [`val ${validation.toFixed(4)}`]),
    ...(step.memory_bytes === undefined ? [] : [formatBytes(step.memory_bytes)]),
    ...dataWait(step),
    `${formatDuration(seconds)} so far`,
  ];
  let line = cells[0] ?? '';
  for (const cell of cells.slice(1)) if (line.length + 2 + cell.length <= columns) line += `  ${cell}`;
  return line;
}

/** Of the time of an update, the part in which the host waited for samples. */
function dataWait({ data_ms: data, step_time_ms: all }: StepEvent): string[] {
  return data === undefined || all <= 0 ? [] : [`data ${Math.min(100, (data / all) * 100).toFixed(0)} %`];
}

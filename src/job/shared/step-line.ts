import { formatBytes, formatCount, formatDuration } from '../../base/format-amount.js';
import type { StepEvent } from './messages.js';

export interface StepStyle {
  /** train.train_iters. */
  totalSteps: number;
  device: 'cpu' | 'cuda';
  /** Ranks of the run: rates are by rank, or GPU, and say so where there are several. 1 by default. */
  ranks?: number;
  /** Whether the run evaluates as it trains: the last validation loss then has a column. */
  validates?: boolean;
  /** Width of the terminal: columns that it has no room for are left out. A pipe gets all. */
  columns?: number | undefined;
}

/**
 * One line of text of a finished step, in columns that stay where they are from line to line: what tells whether it
 * learns comes first, so that 80 columns hold it.
 * @param validation the last validation loss
 */
export function formatStep(event: StepEvent, style: StepStyle, validation?: number): string {
  const { device, ranks = 1, validates = false, columns = Infinity } = style;
  const { tokens_per_s_per_device: rate, tflops_per_device: tflops, mfu } = event;
  const unit = ranks === 1 ? '' : device === 'cuda' ? '/GPU' : '/rank';
  const cells = [
    stepOf(event.step, style.totalSteps),
    `loss ${event.loss.toFixed(4).padStart(6)}`,
    ...(validates ? [`val ${(validation?.toFixed(4) ?? '-').padStart(6)}`] : []),
    `norm ${formatShort(event.grad_norm).padStart(5)}`,
    `lr ${event.lr.toExponential(1)}`,
    formatMs(event.step_time_ms).padStart(7),
  ];
  const notes =
    event['skipped'] === true ? [event.tokens === 0 ? 'skipped: no token counts (tokens 0)' : 'skipped'] : [];
  const further = [
    ...(rate === undefined ? [] : [`${Math.round(rate).toLocaleString('en-US').padStart(6)} tok/s${unit}`]),
    ...(mfu !== undefined && mfu > 0 ? [`MFU ${(mfu * 100).toFixed(1)} %`] : []),
    ...(event.eta_s === undefined ? [] : [`left ${formatDuration(event.eta_s).padStart(4)}`]),
    ...(event.tokens_seen === undefined ? [] : [`${formatCount(event.tokens_seen).padStart(5)} tokens`]),
    ...(event.memory_bytes === undefined ? [] : [formatBytes(event.memory_bytes).padStart(8)]),
    ...(event.data_ms === undefined ? [] : [`data ${formatMs(event.data_ms).padStart(6)}`]),
    ...(tflops !== undefined && device === 'cuda' ? [`${tflops.toFixed(1)} TFLOP/s${unit}`] : []),
  ];
  // Such a line is rare, and its note the reason to look at it.
  return fit([...cells, ...notes], further, columns);
}

/** The cells that a line must have, and of the further ones those that it has room for. */
export function fit(needed: readonly string[], further: readonly string[], columns: number): string {
  let line = needed.join(GAP);
  for (const cell of further) {
    if (line.length + GAP.length + cell.length <= columns) line += `${GAP}${cell}`;
  }
  return line;
}

const GAP = '  ';

/** `step   12/50`, also for other lines about a step. */
export function stepOf(step: number, totalSteps: number, word = 'step'): string {
  const total = String(totalSteps);
  return `${word} ${String(step).padStart(total.length)}/${total}`;
}

/** A number of any size in a few characters. */
export function formatShort(value: number): string {
  return value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 10_000)
    ? value.toExponential(2)
    : value.toFixed(2);
}

function formatMs(ms: number): string {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

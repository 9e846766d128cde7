import { formatBytes, formatCount } from '../../base/format-amount.js';
import type { StepKey } from './trace-event.js';

export type MetricKey = StepKey | 'validation';

/** Something of a run that is drawn over its updates. */
export interface Metric {
  readonly key: MetricKey;
  readonly title: string;
  /** What the title does not say: the unit, or of whom. */
  readonly note: string;
  readonly format: (value: number) => string;
  /** Whether smoothing is of use. */
  readonly noisy: boolean;
  /** Whether it has no use for a logarithmic scale. */
  readonly linear?: boolean;
}

/** In the order in which a page has them. */
export const METRICS: readonly Metric[] = [
  { key: 'loss', title: 'Loss', note: 'nats a token', format: (value) => short(value, 4), noisy: true },
  {
    key: 'validation',
    title: 'Validation loss',
    note: 'nats a token',
    format: (value) => short(value, 4),
    noisy: false,
  },
  {
    key: 'grad_norm',
    title: 'Gradient norm',
    note: 'before clipping',
    format: (value) => short(value, 3),
    noisy: true,
  },
  { key: 'lr', title: 'Learning rate', note: '', format: (value) => value.toExponential(1), noisy: false },
  {
    ...{ key: 'tokens_per_s_per_device', title: 'Tokens/s', note: 'a GPU, or a process on a CPU' },
    ...{ format: formatCount, noisy: true },
  },
  {
    key: 'mfu',
    title: 'MFU',
    note: "of the GPU's peak in bf16",
    format: (value) => `${(value * 100).toFixed(1)} %`,
    noisy: true,
    linear: true,
  },
  { key: 'memory_bytes', title: 'Memory', note: 'in use on rank 0', format: formatBytes, noisy: false, linear: true },
  { key: 'step_time_ms', title: 'Time of an update', note: '', format: milliseconds, noisy: true },
  { key: 'data_ms', title: 'Wait for data', note: 'in an update, on rank 0', format: milliseconds, noisy: true },
];

function milliseconds(value: number): string {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

/** A number of any size with so many decimals. */
function short(value: number, decimals: number): string {
  if (value !== 0 && (Math.abs(value) < 10 ** -decimals || Math.abs(value) >= 100_000)) return value.toExponential(2);
  return value.toFixed(decimals);
}

/** What a curve goes over. */
export const X_AXES = ['step', 'time', 'tokens'] as const;
export type XAxis = (typeof X_AXES)[number];

import uPlot from 'uplot';
import type { XAxis } from '../view/metrics.js';
import type { Metric } from '../view/metrics.js';
import type { RunData } from '../view/run-data.js';
import { smooth } from '../view/smooth.js';

/** A run that a chart draws. */
export interface DrawnRun {
  readonly name: string;
  readonly data: RunData;
  readonly color: string;
}

export interface ChartSettings {
  readonly axis: XAxis;
  /** 0 draws what was measured alone. */
  readonly smoothing: number;
  readonly log: boolean;
}

/** One line of a chart. */
export interface DrawnCurve {
  readonly label: string;
  readonly color: string;
  /** Dash pattern; none for a run's first curve. */
  readonly dash: readonly number[];
  /** What was measured, under its smoothed curve. */
  readonly faint: boolean;
}

export interface ChartData {
  readonly curves: readonly DrawnCurve[];
  /** x, then y of each curve. */
  readonly data: uPlot.AlignedData;
}

const DASHES: readonly (readonly number[])[] = [[], [6, 4], [2, 3], [8, 3, 2, 3]];

/** The curves of a metric over each other; undefined where no run has any. */
export function chartData(metric: Metric, runs: readonly DrawnRun[], settings: ChartSettings): ChartData | undefined {
  const { axis, smoothing, log } = settings;
  const curves: DrawnCurve[] = [];
  const tables: uPlot.AlignedData[] = [];
  for (const { name, data, color } of runs) {
    data.curves(metric.key, axis).forEach((curve, i) => {
      if (curve.y.every((value) => value === null)) return;
      const label = curve.name === '' ? name : `${name} · ${curve.name}`;
      const drawn = { label, color, dash: DASHES[i % DASHES.length] ?? [] };
      const smoothed = metric.noisy && smoothing > 0;
      const positive = (values: readonly (number | null)[]): (number | null)[] =>
        values.map((value) => (log && value !== null && value <= 0 ? null : value));
      if (smoothed) curves.push({ ...drawn, faint: true });
      curves.push({ ...drawn, faint: false });
      const rows = smoothed ? [curve.y, smooth(curve.y, smoothing)] : [curve.y];
      tables.push([[...curve.x], ...rows.map(positive)]);
    });
  }
  if (curves.length === 0) return undefined;
  return { curves, data: tables.length === 1 ? tables[0]! : uPlot.join(tables) };
}

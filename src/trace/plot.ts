import { formatCount, formatDuration } from '../base/format-amount.js';
import { METRICS, type Metric, type MetricKey, type XAxis } from './view/metrics.js';
import { RunData, type Curve } from './view/run-data.js';
import type { WholeRun } from './view/run-view.js';
import { smooth } from './view/smooth.js';
import { TIME_STEPS, WHOLE_STEPS, linearTicks, logTicks, type Ticks } from './view/ticks.js';

export interface PlotOptions {
  readonly metrics: readonly MetricKey[];
  readonly axis: XAxis;
  readonly log: boolean;
  /** 0 draws what was measured; see {@link smooth}. */
  readonly smoothing: number;
}

interface Line extends Curve {
  readonly label: string;
  readonly color: string;
  readonly dash: string;
}

const COLORS = ['#2f6fde', '#e0631b', '#13946b', '#b5359c', '#a68100', '#7350e0', '#0b93b5', '#cf2f4f'] as const;
const DASHES = ['', '7 4', '2 3', '9 3 2 3'] as const;
const X_TITLES: Readonly<Record<XAxis, string>> = { step: 'update', time: 'time', tokens: 'tokens' };
/** In pixels: one metric's panel, and what is around its curves. */
const PANEL = { width: 760, height: 360, left: 72, right: 20, top: 36, bottom: 44 };
const LEGEND_ROW = 20;

/** Runs over each other as a picture (SVG), a panel a metric; undefined where no run has a number of any. */
export function plotSvg(runs: readonly WholeRun[], options: PlotOptions): string | undefined {
  const data = runs.map(({ view, lines }) => {
    const own = new RunData(view);
    for (const { events } of lines) own.add(events);
    return { name: view.name, data: own };
  });
  const panels = METRICS.filter(({ key }) => options.metrics.includes(key)).flatMap((metric) => {
    const lines = data.flatMap(({ name, data: own }, i) => linesOf(name, own, i, metric, options));
    return lines.length === 0 ? [] : [{ metric, lines }];
  });
  if (panels.length === 0) return undefined;
  const legend = new Map(data.map(({ name }, i) => [i, name]));
  const bottom = panels.length * PANEL.height;
  const height = bottom + legend.size * LEGEND_ROW + 12;
  const body = panels.map(({ metric, lines }, i) => panel(metric, lines, options, i * PANEL.height));
  const names = [...legend].map(([i, name]) => {
    const y = bottom + i * LEGEND_ROW + 10;
    const color = COLORS[i % COLORS.length]!;
    return `<line x1="${PANEL.left}" x2="${PANEL.left + 24}" y1="${y}" y2="${y}" stroke="${color}" stroke-width="2"/>${text(PANEL.left + 32, y + 4, name)}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${PANEL.width}" height="${height}" viewBox="0 0 ${PANEL.width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#1b2130">
<rect width="100%" height="100%" fill="#ffffff"/>
${[...body, ...names].join('\n')}
</svg>
`;
}

function linesOf(name: string, data: RunData, run: number, metric: Metric, options: PlotOptions): Line[] {
  return data.curves(metric.key, options.axis).flatMap((curve, i) => {
    const y = smooth(curve.y, metric.noisy ? options.smoothing : 0);
    const shown = y.map((value) => (options.log && value !== null && value <= 0 ? null : value));
    if (shown.every((value) => value === null)) return [];
    const label = curve.name === '' ? name : `${name}: ${curve.name}`;
    return [{ ...curve, y: shown, label, color: COLORS[run % COLORS.length]!, dash: DASHES[i % DASHES.length]! }];
  });
}

/** A scale from numbers to pixels. */
interface Scale {
  readonly ticks: Ticks;
  readonly place: (value: number) => number;
}

function panel(metric: Metric, lines: readonly Line[], { axis, log }: PlotOptions, top: number): string {
  const { width, height, left, right } = PANEL;
  const [from, to] = [top + PANEL.top, top + height - PANEL.bottom];
  const x = scaleOf(
    lines.flatMap((line) => [line.x[0]!, line.x.at(-1)!]),
    [left, width - right],
    false,
    axis === 'time' ? TIME_STEPS : WHOLE_STEPS,
  );
  const y = scaleOf(
    lines.flatMap((line) => line.y.filter((value) => value !== null)),
    [to, from],
    log,
  );
  const grid = [
    ...x.ticks.at.map((at) => {
      const pixel = round(x.place(at));
      return `<line x1="${pixel}" x2="${pixel}" y1="${from}" y2="${to}" stroke="#edeff3"/>${text(pixel, to + 18, xText(axis, at), 'middle')}`;
    }),
    ...y.ticks.at.map((at) => {
      const pixel = round(y.place(at));
      return `<line x1="${left}" x2="${width - right}" y1="${pixel}" y2="${pixel}" stroke="#edeff3"/>${text(left - 8, pixel + 4, yText(metric, y.ticks, at), 'end')}`;
    }),
  ];
  const curves = lines.map(({ x: xs, y: ys, label, color, dash }) => {
    const dashed = dash === '' ? '' : ` stroke-dasharray="${dash}"`;
    const path = pathOf(
      xs.map(x.place),
      ys.map((value) => (value === null ? null : y.place(value))),
    );
    return `<path d="${path}" fill="none" stroke="${color}" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"${dashed}><title>${escape(label)}</title></path>`;
  });
  const note = metric.note === '' ? '' : ` (${metric.note})`;
  const title = `<text x="${left}" y="${top + 22}" font-size="14" font-weight="600">${escape(`${metric.title}${note}`)}</text>`;
  return [title, ...grid, ...curves, text(width - right, to + 36, X_TITLES[axis], 'end')].join('\n');
}

function scaleOf(
  values: readonly number[],
  [start, end]: readonly [number, number],
  log: boolean,
  steps?: readonly number[],
): Scale {
  const to = log ? Math.log10 : (value: number) => value;
  const back = log ? (value: number) => 10 ** value : (value: number) => value;
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, to(value)), Math.max(high, to(value))];
  // A curve that is level runs through the middle.
  if (low === high)
    [low, high] = log ? [low - 0.5, high + 0.5] : [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  const ticks = log ? logTicks(back(low), back(high)) : linearTicks(low, high, 7, steps);
  return { ticks, place: (value) => start + ((to(value) - low) / (high - low)) * (end - start) };
}

/** A gap is left out: curves of validation have few points. */
function pathOf(xs: readonly number[], ys: readonly (number | null)[]): string {
  const points = xs.flatMap((x, i) => (ys[i] == null ? [] : [`${round(x)} ${round(ys[i])}`]));
  // One point alone is drawn as the round end of a line.
  return points.length === 1 ? `M${points[0]}h0` : `M${points.join('L')}`;
}

function xText(axis: XAxis, value: number): string {
  if (axis === 'time') return formatDuration(value);
  return value >= 10_000 || axis === 'tokens' ? formatCount(value) : String(value);
}

function yText({ key, format }: Metric, { decimals }: Ticks, value: number): string {
  if (key === 'memory_bytes' || key === 'mfu' || key === 'tokens_per_s_per_device') return format(value);
  if (decimals !== null && value !== 0) return value.toFixed(decimals);
  return value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e5)
    ? Number(value.toPrecision(3)).toExponential()
    : String(value);
}

function text(x: number, y: number, what: string, anchor = 'start'): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="#4c566a">${escape(what)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** Text of an XML document; characters that it cannot hold are left out. */
function escape(what: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return what
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '')
    .replace(/[&<>"']/g, (char) => entities[char] ?? '');
}

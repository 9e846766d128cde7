import uPlot from 'uplot';
import { formatCount, formatDuration } from '../../base/format-amount.js';
import { X_AXES, type Metric, type XAxis } from '../view/metrics.js';
import { TIME_STEPS } from '../view/ticks.js';
import type { ChartData, ChartSettings } from './chart-data.js';
import { element, styleOf } from './dom.js';

const X_TITLES: Readonly<Record<XAxis, string>> = { step: 'update', time: 'time', tokens: 'tokens' };
/** Of uPlot's enumeration, which its declarations have and its code has not. */
// eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment
const LOG_SCALE: uPlot.Scale.Distr.Logarithmic = 3;
const BYTES = Array.from({ length: 50 }, (_, i) => 2 ** i);

/** A chart of one metric, with what the curves are at the pointer, or at their end. */
export class Chart {
  readonly root: HTMLElement;
  readonly #metric: Metric;
  readonly #body = element('div', { class: 'plot', tabindex: '0' });
  readonly #readout = element('ul', { class: 'readout' });
  #plot: uPlot | undefined;
  /** What it was made for: another makes it anew. */
  #made = '';
  #shown: ChartData | undefined;
  #axis: XAxis = X_AXES[0];

  constructor(metric: Metric) {
    this.#metric = metric;
    const note = element('span', { class: 'note' }, metric.note);
    const title = element('h2', {}, metric.title, ' ', note);
    this.root = element('section', { class: `card chart chart-${metric.key}`, 'data-metric': metric.key }, title);
    this.root.append(this.#readout, this.#body);
    this.#body.addEventListener('keydown', (event) => this.#onKey(event));
    new ResizeObserver(() => this.#resize()).observe(this.#body);
  }

  draw(shown: ChartData | undefined, settings: ChartSettings): void {
    this.root.hidden = shown === undefined;
    this.#shown = shown;
    this.#axis = settings.axis;
    if (shown === undefined) return;
    const made = JSON.stringify([settings.axis, settings.log, shown.curves, styleOf('--grid'), styleOf('--muted')]);
    if (made !== this.#made || this.#plot === undefined) {
      this.#plot?.destroy();
      this.#plot = new uPlot(this.#options(shown, settings), shown.data, this.#body);
      this.#made = made;
    } else {
      const zoomed = isZoomed(this.#plot);
      this.#plot.setData(shown.data, !zoomed);
      if (zoomed) this.#plot.redraw();
    }
    this.#describe();
    this.#read(this.#plot.cursor.idx ?? null);
  }

  #options({ curves }: ChartData, { axis, log }: ChartSettings): uPlot.Options {
    const line = { stroke: styleOf('--muted'), grid: { stroke: styleOf('--grid'), width: 1 }, ticks: { show: false } };
    const font = `11px ${styleOf('--font')}`;
    return {
      ...this.#size(),
      legend: { show: false },
      padding: [8, 12, 0, 0],
      scales: { x: { time: false }, y: log ? { distr: LOG_SCALE } : {} },
      cursor: { sync: { key: 'runs', setSeries: false }, drag: { x: true, y: false }, points: { size: 6 }, y: false },
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx ?? null)] },
      axes: [
        {
          ...{ ...line, font, size: 22, gap: 4, space: 64 },
          ...(axis === 'time' ? { incrs: [...TIME_STEPS] } : {}),
          values: (_, splits) => splits.map((at) => this.#xText(at)),
        },
        {
          ...{ ...line, font, gap: 4, space: 32 },
          ...(this.#metric.key === 'memory_bytes' ? { incrs: BYTES } : {}),
          size: (plot, values) => axisWidth(plot, values, font),
          values: (_, splits) => splits.map((at: number | null) => (at === null ? '' : this.#yText(at))),
        },
      ],
      series: [
        {},
        ...curves.map(({ label, color, dash, faint }): uPlot.Series => ({
          ...{ label, stroke: color, dash: [...dash], spanGaps: true, width: faint ? 1 : 1.75 },
          ...{ alpha: faint ? 0.4 : 1, points: { show: false } },
          // Two points make a line, one is nothing to see.
          ...(faint ? {} : { points: { show: (plot, i) => countOf(plot.data[i]) < 24, size: 5, fill: color } }),
        })),
      ],
    };
  }

  /** The numbers where the pointer is; without one, at the end. */
  #read(index: number | null): void {
    const shown = this.#shown;
    if (shown === undefined) return;
    const [x, ...ys] = shown.data;
    const at = index ?? x.length - 1;
    const rows = shown.curves.flatMap(({ label, color, faint }, i) => {
      const value = faint ? null : lastUpTo(ys[i] ?? [], at);
      if (value === null) return [];
      const swatch = element('i', { class: 'swatch' });
      swatch.style.background = color;
      const number = element('b', {}, this.#metric.format(value));
      return [element('li', { title: label }, swatch, number)];
    });
    const where = element('li', { class: 'where' }, index === null ? '' : this.#xText(x[at] ?? 0, true));
    this.#readout.replaceChildren(where, ...rows);
  }

  #describe(): void {
    const [, ...ys] = this.#shown!.data;
    const texts = this.#shown!.curves.flatMap(({ label, faint }, i) => {
      const values = (ys[i] ?? []).filter((value) => value != null);
      const [first, last] = [values[0], values.at(-1)];
      if (faint || first === undefined || last === undefined) return [];
      return [`${label} ${this.#metric.format(first)} to ${this.#metric.format(last)}`];
    });
    const help = 'Arrow keys move the pointer, Escape shows all.';
    this.#body.setAttribute('role', 'img');
    this.#body.setAttribute('aria-label', `${this.#metric.title}: ${texts.join('; ')}. ${help}`);
  }

  #onKey(event: KeyboardEvent): void {
    const plot = this.#plot;
    if (plot === undefined) return;
    const x = plot.data[0];
    const moves: Readonly<Record<string, number>> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 };
    const move = moves[event.key];
    if (event.key === 'Escape') plot.setScale('x', { min: x[0] ?? 0, max: x.at(-1) ?? 1 });
    else if (move === undefined) return;
    else {
      const to = Math.max(0, Math.min(x.length - 1, (plot.cursor.idx ?? x.length - 1) + move));
      plot.setCursor({ left: plot.valToPos(x[to] ?? 0, 'x'), top: 8 });
    }
    event.preventDefault();
  }

  #xText(value: number, exact = false): string {
    if (this.#axis === 'time') return formatDuration(value);
    const text = this.#axis === 'tokens' || (!exact && value >= 10_000) ? formatCount(value) : value.toLocaleString();
    return exact ? `${X_TITLES[this.#axis]} ${text}` : text;
  }

  #yText(value: number): string {
    const { key, format } = this.#metric;
    if (key === 'lr') return value === 0 ? '0' : value.toExponential(0);
    if (['loss', 'validation', 'grad_norm'].includes(key)) return String(Number(value.toPrecision(4)));
    return format(value).replace(/\.0+(?=\D|$)/, '');
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(160, this.#body.clientWidth), height: Math.max(120, this.#body.clientHeight) };
  }

  #resize(): void {
    const size = this.#size();
    if (this.#plot !== undefined && (this.#plot.width !== size.width || this.#plot.height !== size.height)) {
      this.#plot.setSize(size);
    }
  }
}

function isZoomed({ data: [x], scales }: uPlot): boolean {
  const { min, max } = scales['x'] ?? {};
  return min != null && max != null && x.length > 1 && (min > x[0]! || max < x.at(-1)!);
}

function countOf(values: uPlot.AlignedData[number] | undefined): number {
  let count = 0;
  for (const value of values ?? []) if (value != null) count++;
  return count;
}

/** Curves of other runs have points between this one's. */
function lastUpTo(values: ArrayLike<number | null | undefined>, index: number): number | null {
  for (let i = index; i >= 0; i--) {
    const value = values[i];
    if (value != null) return value;
  }
  return null;
}

function axisWidth(plot: uPlot, values: readonly string[] | null, font: string): number {
  plot.ctx.font = font;
  const widths = (values ?? []).map((value) => plot.ctx.measureText(value).width);
  return Math.max(36, Math.ceil(Math.max(0, ...widths)) + 12);
}

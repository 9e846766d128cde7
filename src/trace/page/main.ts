import { METRICS, X_AXES, type XAxis } from '../view/metrics.js';
import { RunData } from '../view/run-data.js';
import type { RunItem, RunView, TraceLines } from '../view/run-view.js';
import { Chart } from './chart.js';
import { chartData } from './chart-data.js';
import { byId, element, styleOf } from './dom.js';
import {
  renderConfig,
  renderEnvironment,
  renderRanks,
  renderSamples,
  renderWarnings,
  type ShownRun,
} from './panels.js';
import { renderRuns, type ListedRun } from './run-list.js';
import { LiveSource, embeddedRuns, tellRuns, type Listener } from './source.js';

const COLORS = 8;
/** Between two looks at what has come. */
const DRAW_MS = 200;

/** The page: what it was told of runs, and how the reader wants to see it. */
class Page implements Listener {
  readonly #charts = METRICS.map((metric) => ({ metric, chart: new Chart(metric) }));
  readonly #live: LiveSource | undefined;
  #items: readonly RunItem[] = [];
  readonly #views = new Map<string, RunView>();
  readonly #data = new Map<string, RunData>();
  readonly #thinned = new Map<string, number>();
  readonly #hidden = new Set<string>();
  /** In the order in which runs were first shown, which gives each its color. */
  readonly #order: string[] = [];
  #due: number | undefined;

  constructor() {
    byId('charts', HTMLElement).append(...this.#charts.map(({ chart }) => chart.root));
    const axes = X_AXES.map((axis) => element('option', { value: axis }, axis));
    byId('axis', HTMLSelectElement).append(...axes);
    for (const id of ['axis', 'smoothing', 'log', 'search', 'different']) {
      byId(id, HTMLElement).addEventListener('input', () => this.#draw());
    }
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
    const report = embeddedRuns();
    if (report !== undefined) {
      byId('connection', HTMLElement).hidden = true;
      tellRuns(report, this);
      return;
    }
    this.#live = new LiveSource(this);
    this.#live.follow();
  }

  runs(items: readonly RunItem[]): void {
    this.#items = items;
    this.#drawSoon();
  }

  run(view: RunView): void {
    this.#views.set(view.id, view);
    if (!this.#data.has(view.id)) this.#data.set(view.id, new RunData(view));
    if (!this.#order.includes(view.id)) this.#order.push(view.id);
    this.#drawSoon();
  }

  lines({ id, file, reset, events }: TraceLines): void {
    const data = this.#data.get(id);
    if (reset) data?.reset(file);
    data?.add(events);
    this.#drawSoon();
  }

  thinned(id: string, from: number): void {
    this.#thinned.set(id, from);
  }

  connected(is: boolean): void {
    const sign = byId('connection', HTMLElement);
    sign.textContent = is ? 'live' : 'not connected';
    sign.className = is ? 'live' : 'lost';
  }

  #toggle(id: string): void {
    if (this.#hidden.has(id)) this.#hidden.delete(id);
    else if (this.#views.has(id)) this.#hidden.add(id);
    else this.#live?.follow([...this.#views.keys(), id]);
    this.#draw();
  }

  #drawSoon(): void {
    this.#due ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #draw(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    const listed = this.#items.map((item) => this.#listed(item));
    renderRuns(byId('runs', HTMLElement), listed, (id) => this.#toggle(id));
    byId('empty', HTMLElement).hidden = listed.length > 0;
    const shown = listed.flatMap(({ view, data, color, shown: is }): ShownRun[] =>
      is && view !== undefined && data !== undefined ? [{ view, data, color }] : [],
    );
    this.#drawCharts(shown);
    renderWarnings(byId('warnings', HTMLElement), shown);
    renderRanks(byId('ranks', HTMLElement), shown);
    renderSamples(byId('samples', HTMLElement), shown);
    const search = byId('search', HTMLInputElement).value;
    renderConfig(byId('config', HTMLElement), shown, search, byId('different', HTMLInputElement).checked);
    renderEnvironment(byId('environment', HTMLElement), shown);
    document.title = titleOf(shown);
  }

  #drawCharts(shown: readonly ShownRun[]): void {
    const smoothing = Number(byId('smoothing', HTMLInputElement).value);
    byId('smoothing-value', HTMLElement).textContent = smoothing.toFixed(2);
    const settings = { axis: this.#axis, smoothing, log: byId('log', HTMLInputElement).checked };
    const runs = shown.map(({ view, data, color }) => ({ name: view.name, data, color }));
    for (const { metric, chart } of this.#charts) {
      const own = { ...settings, log: settings.log && metric.linear !== true };
      chart.draw(chartData(metric, runs, own), own);
    }
  }

  get #axis(): XAxis {
    const { value } = byId('axis', HTMLSelectElement);
    return X_AXES.find((axis) => axis === value) ?? X_AXES[0];
  }

  #listed(item: RunItem): ListedRun {
    const { id } = item;
    const view = this.#views.get(id);
    const place = this.#order.indexOf(id);
    return {
      ...{ item, view, data: this.#data.get(id), thinnedFrom: this.#thinned.get(id) },
      color: styleOf(`--run-${(place < 0 ? 0 : place) % COLORS}`),
      shown: view !== undefined && !this.#hidden.has(id),
    };
  }
}

/** In a tab of the browser: how far the newest run that is shown is. */
function titleOf(shown: readonly ShownRun[]): string {
  const newest = shown.at(-1);
  if (newest === undefined) return 'mbridge';
  const last = newest.data.steps.at(-1);
  const loss = typeof last?.loss === 'number' ? ` ${last.loss.toFixed(3)}` : '';
  return `${last?.step ?? 0}/${newest.view.updates}${loss} · ${newest.view.name}`;
}

new Page();

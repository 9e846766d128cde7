import type { RunData } from '../view/run-data.js';
import type { RunView } from '../view/run-view.js';
import type { Sample } from '../view/trace-event.js';
import { element } from './dom.js';
import { heatStrip } from './heat-strip.js';

/** A run that is shown. */
export interface ShownRun {
  readonly view: RunView;
  readonly data: RunData;
  readonly color: string;
}

const MOST_WARNINGS = 50;
const MOST_SAMPLES = 24;

/** Fills a panel, and takes it away where there is nothing to say. */
function fill(panel: HTMLElement, children: readonly HTMLElement[]): void {
  const into = panel.querySelector('.content') ?? panel;
  into.replaceChildren(...children);
  panel.hidden = children.length === 0;
}

/** Losses that jumped and ranks that are slow, the newest first. */
export function renderWarnings(panel: HTMLElement, runs: readonly ShownRun[]): void {
  const all = runs.flatMap(({ view, data, color }) => [
    ...data.lossWarnings.map(({ step, kind, loss, usual }) => {
      const what = kind === 'spike' ? 'the loss jumped' : 'the loss is above that of guessing';
      return { step, color, name: view.name, text: `${what}: ${number(loss)}, usual is ${number(usual)}` };
    }),
    ...data.stragglers.map(({ step, ranks }) => {
      const slow = ranks.map(({ rank, ms, median_ms: usual }) => {
        return `rank ${rank} is slow: ${ms.toFixed(1)} ms of own work an update, the median of the others ${usual.toFixed(1)} ms`;
      });
      return { step, color, name: view.name, text: slow.length === 0 ? 'no rank is slow any more' : slow.join('; ') };
    }),
  ]);
  const newest = all.sort((a, b) => b.step - a.step).slice(0, MOST_WARNINGS);
  const rows = newest.map(({ step, color, name, text }) => {
    return element(
      'li',
      {},
      swatchOf(color),
      element('b', {}, `update ${step}`),
      ` ${text} `,
      element('small', {}, name),
    );
  });
  fill(panel, rows.length === 0 ? [] : [element('ul', { class: 'warnings' }, ...rows)]);
}

function number(value: number | null): string {
  return value === null ? 'not a number' : value.toFixed(4);
}

export function renderRanks(panel: HTMLElement, runs: readonly ShownRun[]): void {
  const told = runs.filter(({ data }) => data.rankTimes.length > 0);
  fill(
    panel,
    told.map(({ view, data }) => heatStrip(view.name, data.rankTimes)),
  );
}

/** What the models wrote, the newest first. */
export function renderSamples(panel: HTMLElement, runs: readonly ShownRun[]): void {
  const all = runs.flatMap(({ view, data, color }) =>
    data.samples.map((sample) => ({ sample, color, name: view.name })),
  );
  const newest = all.sort((a, b) => b.sample.step - a.sample.step).slice(0, MOST_SAMPLES);
  fill(
    panel,
    newest.map(({ sample, color, name }) => sampleOf(sample, color, name)),
  );
}

function sampleOf({ step, prompt, text }: Sample, color: string, name: string): HTMLElement {
  const head = element('figcaption', {}, swatchOf(color), `update ${step} `, element('small', {}, name));
  return element('figure', { class: 'sample' }, head, element('p', {}, element('b', {}, prompt), text));
}

/** What the runs were set to, a column a run. */
export function renderConfig(panel: HTMLElement, runs: readonly ShownRun[], search: string, different: boolean): void {
  const keys = [...new Set(runs.flatMap(({ view }) => Object.keys(view.config)))];
  const rows = keys.flatMap((key) => {
    const values = runs.map(({ view }) => said(view.config[key]));
    const differ = values.some((value) => value !== values[0]);
    if ((different && runs.length > 1 && !differ) || !key.toLowerCase().includes(search.toLowerCase())) return [];
    return [row(key, values, differ)];
  });
  const into = panel.querySelector('.content')!;
  into.replaceChildren(rows.length === 0 ? element('p', {}, 'nothing differs') : tableOf(runs, rows));
  panel.hidden = runs.length === 0;
}

export function renderEnvironment(panel: HTMLElement, runs: readonly ShownRun[]): void {
  const names = [...new Set(runs.flatMap(({ view }) => view.environment.map(([name]) => name)))];
  const rows = names.map((name) => {
    const values = runs.map(({ view }) => view.environment.find(([other]) => other === name)?.[1] ?? '');
    return row(name, values, false);
  });
  fill(panel, rows.length === 0 ? [] : [tableOf(runs, rows)]);
}

function tableOf(runs: readonly ShownRun[], rows: readonly HTMLElement[]): HTMLElement {
  const heads = runs.map(({ view, color }) => element('th', { scope: 'col' }, swatchOf(color), view.name));
  const head = element('thead', {}, element('tr', {}, element('td'), ...heads));
  const table = element('table', {}, ...(runs.length > 1 ? [head] : []), element('tbody', {}, ...rows));
  return element('div', { class: 'scroll' }, table);
}

function row(key: string, values: readonly string[], differ: boolean): HTMLElement {
  const cells = values.map((value) => element('td', {}, value));
  return element('tr', differ ? { class: 'differs' } : {}, element('th', { scope: 'row' }, key), ...cells);
}

function said(value: unknown): string {
  if (value === undefined) return 'unset';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function swatchOf(color: string): HTMLElement {
  const swatch = element('i', { class: 'swatch' });
  swatch.style.background = color;
  swatch.style.borderColor = color;
  return swatch;
}

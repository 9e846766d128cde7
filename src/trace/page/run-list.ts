import { formatDuration } from '../../base/format-amount.js';
import type { RunData } from '../view/run-data.js';
import type { RunItem, RunView } from '../view/run-view.js';
import { element } from './dom.js';

/** A run as the list has it; without a view it is not followed yet. */
export interface ListedRun {
  readonly item: RunItem;
  readonly view: RunView | undefined;
  readonly data: RunData | undefined;
  readonly color: string;
  readonly shown: boolean;
  /** Updates that the run has told of, where the page holds only some. */
  readonly thinnedFrom: number | undefined;
}

/** The runs, newest first, each with a box that shows or hides it. It is the legend of every chart. */
export function renderRuns(list: HTMLElement, runs: readonly ListedRun[], toggle: (id: string) => void): void {
  const focused = document.activeElement?.getAttribute('data-run');
  list.replaceChildren(...runs.map((run) => row(run, toggle)).reverse());
  if (focused == null) return;
  const boxes = list.querySelectorAll<HTMLInputElement>('input');
  [...boxes].find((box) => box.getAttribute('data-run') === focused)?.focus();
}

function row(run: ListedRun, toggle: (id: string) => void): HTMLElement {
  const { item, view, shown, color } = run;
  const box = element('input', { type: 'checkbox', 'data-run': item.id });
  box.checked = shown;
  box.addEventListener('change', () => toggle(item.id));
  const swatch = element('i', { class: 'swatch' });
  swatch.style.background = shown ? color : 'transparent';
  swatch.style.borderColor = shown ? color : '';
  const name = element('span', { class: 'name', title: view?.folder ?? item.name }, item.name);
  const state = element('span', { class: `state state-${item.state}` }, item.state);
  const label = element('label', {}, box, swatch, name, state, element('span', { class: 'facts' }, facts(run)));
  const bar = progress(run);
  const parts = [label, ...(bar === undefined ? [] : [bar]), ...(view?.error == null ? [] : [failure(view)])];
  return element('li', { class: shown ? 'run' : 'run run-hidden' }, ...parts);
}

function facts({ item, view, data, thinnedFrom }: ListedRun): string {
  if (view === undefined || data === undefined) return new Date(item.started).toLocaleString();
  const last = data.steps.at(-1);
  if (last === undefined) return `0/${view.updates}`;
  const eta = item.state === 'running' && last.eta_s !== undefined ? [`${formatDuration(last.eta_s)} left`] : [];
  const loss = typeof last.loss === 'number' ? [`loss ${last.loss.toFixed(4)}`] : [];
  const thin = thinnedFrom === undefined ? [] : [`${data.steps.length} of ${thinnedFrom} updates are in this page`];
  const time = [formatDuration(data.seconds)];
  return [`${last.step.toLocaleString()}/${view.updates.toLocaleString()}`, ...loss, ...time, ...eta, ...thin].join(
    ' · ',
  );
}

function progress({ item, view, data }: ListedRun): HTMLElement | undefined {
  if (item.state !== 'running' || view === undefined) return undefined;
  const value = String(data?.steps.at(-1)?.step ?? 0);
  return element('progress', { value, max: String(view.updates), 'aria-label': `updates of ${item.name}` });
}

function failure({ error }: RunView): HTMLElement {
  const { rank, step, code = '', message = '', hint = null } = error ?? {};
  const where = [...(rank == null ? [] : [`rank ${rank}`]), ...(step == null ? [] : [`update ${step}`])].join(', ');
  const head = element('strong', {}, `${where === '' ? '' : `${where}: `}${message}`);
  const rest = [element('code', {}, code), ...(hint === null ? [] : [element('p', {}, hint)])];
  return element('div', { class: 'failure', role: 'alert' }, head, ' ', ...rest);
}

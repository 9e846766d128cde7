import type { RankTimes } from '../view/trace-event.js';
import { element, styleOf } from './dom.js';

/** Slower than the median by so much is as hot as it gets. */
const HOTTEST = 1.3;
const MOST_COLUMNS = 600;

/** The ranks' own work over the updates, a row a rank: as hot as it is slower than the median of its pipeline stage. */
export function heatStrip(name: string, records: readonly RankTimes[]): HTMLElement {
  const shown = records.slice(-MOST_COLUMNS);
  const ranks = Math.max(0, ...shown.map(({ ms }) => ms.length));
  const canvas = element('canvas', { width: String(shown.length), height: String(ranks), role: 'img' });
  const says = element('output', { class: 'heat-says' }, sayMost(shown));
  canvas.setAttribute('aria-label', `work of each rank of ${name}: ${sayMost(shown)}`);
  canvas.style.height = `${Math.max(24, Math.min(ranks * 14, 240))}px`;
  paint(canvas, shown);
  canvas.addEventListener('pointermove', ({ offsetX, offsetY }) => {
    const column = Math.floor((offsetX / canvas.clientWidth) * shown.length);
    const rank = Math.floor((offsetY / canvas.clientHeight) * ranks);
    const record = shown[Math.max(0, Math.min(column, shown.length - 1))];
    if (record?.ms[rank] !== undefined) says.textContent = say(record, rank);
  });
  canvas.addEventListener('pointerleave', () => (says.textContent = sayMost(shown)));
  const ends = element(
    'div',
    { class: 'heat-ends' },
    `update ${shown[0]?.step ?? 0}`,
    says,
    `${shown.at(-1)?.step ?? 0}`,
  );
  return element('figure', { class: 'heat' }, element('figcaption', {}, name), canvas, ends);
}

function paint(canvas: HTMLCanvasElement, records: readonly RankTimes[]): void {
  const context = canvas.getContext('2d');
  if (context === null) return;
  const [cold, hot] = [styleOf('--cold'), styleOf('--hot')];
  records.forEach((record, x) => {
    const usual = usualTimes(record);
    record.ms.forEach((ms, rank) => {
      const heat = Math.max(0, Math.min(1, (ms / usual[rank]! - 1) / (HOTTEST - 1)));
      context.fillStyle = cold;
      context.fillRect(x, rank, 1, 1);
      context.globalAlpha = heat;
      context.fillStyle = hot;
      context.fillRect(x, rank, 1, 1);
      context.globalAlpha = 1;
    });
  });
}

/** For each rank the lower median of its stage: of two ranks the faster one's. */
function usualTimes({ ms, stages }: RankTimes): number[] {
  const byStage = new Map<number, number[]>();
  ms.forEach((value, rank) => {
    const stage = stages?.[rank] ?? 0;
    const values = byStage.get(stage);
    if (values === undefined) byStage.set(stage, [value]);
    else values.push(value);
  });
  const usual = new Map([...byStage].map(([stage, values]) => [stage, lowerMedian(values)]));
  return ms.map((_, rank) => Math.max(1e-9, usual.get(stages?.[rank] ?? 0) ?? 0));
}

function lowerMedian(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[(values.length - 1) >> 1] ?? 0;
}

function say(record: RankTimes, rank: number): string {
  const ms = record.ms[rank] ?? 0;
  return `update ${record.step}, rank ${rank}: ${ms.toFixed(1)} ms, median ${(usualTimes(record)[rank] ?? 0).toFixed(1)} ms`;
}

/** The rank that is slowest over all that is shown. */
function sayMost(records: readonly RankTimes[]): string {
  const last = records.at(-1);
  if (last === undefined) return '';
  const over = last.ms.map(() => 0);
  for (const record of records) {
    const usual = usualTimes(record);
    over.forEach((sum, rank) => (over[rank] = sum + (record.ms[rank] ?? 0) / usual[rank]! / records.length));
  }
  const most = over.indexOf(Math.max(...over));
  return `rank ${most} takes ${Math.round(((over[most] ?? 1) - 1) * 100)} % more than the median`;
}

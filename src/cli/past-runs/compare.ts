import { formatCount, formatDuration } from '../../base/format-amount.js';
import { changedValue, configChanges } from '../../config/changes.js';
import type { StepEvent } from '../../job/shared/messages.js';
import { readSteps, type KnownRun } from '../../job/shared/run-list.js';
import { median } from '../../base/median.js';
import { formatTable } from '../shared/table.js';
import { describeRun, type RunSummary } from './table.js';

/** Updates at which losses are put side by side, at most. */
const ROWS = 10;

/** Two runs side by side. */
export interface Comparison {
  readonly a: ComparedRun;
  readonly b: ComparedRun;
  /** Keys of the configuration that differ, with both values. */
  readonly config: readonly { readonly key: string; readonly a: unknown; readonly b: unknown }[];
  /** Updates that both have; the first in which loss or norm are not the same number; null where all are. */
  readonly common_updates: number;
  readonly first_difference: number | null;
  readonly losses: readonly { readonly step: number; readonly a: number; readonly b: number }[];
}

interface ComparedRun extends RunSummary {
  /** Medians over its updates; null where there are none. */
  readonly step_time_ms: number | null;
  readonly tokens_per_s_per_device: number | null;
}

export function compareRuns(first: KnownRun, second: KnownRun): Comparison {
  const [a, b] = [readSteps(first.folder), readSteps(second.folder)];
  const common = [...a.keys()].filter((step) => b.has(step)).sort((x, y) => x - y);
  const pairs = common.map((step) => ({ step, a: a.get(step) as StepEvent, b: b.get(step) as StepEvent }));
  const parted = pairs.find((pair) => pair.a.loss !== pair.b.loss || pair.a.grad_norm !== pair.b.grad_norm);
  const every = Math.max(1, Math.ceil(pairs.length / ROWS));
  const chosen = pairs.filter((_, i) => (pairs.length - 1 - i) % every === 0);
  return {
    a: compared(first, a),
    b: compared(second, b),
    config: configChanges(first.record.config, second.record.config),
    common_updates: pairs.length,
    first_difference: parted?.step ?? null,
    losses: chosen.map((pair) => ({ step: pair.step, a: pair.a.loss, b: pair.b.loss })),
  };
}

function compared(run: KnownRun, steps: ReadonlyMap<number, StepEvent>): ComparedRun {
  const of = (key: 'step_time_ms' | 'tokens_per_s_per_device'): number | null => {
    const values = [...steps.values()].flatMap((event) => event[key] ?? []);
    return values.length === 0 ? null : median(values);
  };
  return {
    ...describeRun(run),
    step_time_ms: of('step_time_ms'),
    tokens_per_s_per_device: of('tokens_per_s_per_device'),
  };
}

export function comparisonText({
  a,
  b,
  config,
  common_updates: common,
  first_difference: parted,
  losses,
}: Comparison): string {
  const or = (value: number | null, text: (value: number) => string): string => (value === null ? '-' : text(value));
  const whole = (value: number): string => Math.round(value).toLocaleString('en-US');
  const row = (name: string, text: (run: ComparedRun) => string): string[] => [name, text(a), text(b)];
  const facts = formatTable([
    ['', 'A', 'B'],
    row('run', ({ name }) => name),
    row('state', ({ state }) => state),
    row('updates', ({ updates, train_iters: all }) => `${updates}/${all}`),
    row('loss', ({ loss }) => or(loss, (value) => value.toFixed(4))),
    row('tokens', ({ tokens }) => formatCount(tokens)),
    row('time', ({ wall_s: seconds }) => or(seconds, formatDuration)),
    row('ms an update', ({ step_time_ms: ms }) => or(ms, (value) => value.toFixed(value < 10 ? 1 : 0))),
    row('tokens/s a GPU or rank', ({ tokens_per_s_per_device: rate }) => or(rate, whole)),
    row(
      'ranks',
      ({ ranks, layout }) =>
        `${ranks}: ${['tp', 'cp', 'dp', 'pp'].map((key) => `${key} ${layout[key] ?? 1}`).join(' ')}`,
    ),
  ]);
  const differs = config.map(({ key, a: one, b: two }) => [key, changedValue(one), changedValue(two)]);
  const settings = differs.length === 0 ? 'the same configuration\n' : formatTable([['set', 'A', 'B'], ...differs]);
  const same =
    parted === null ? 'the same losses and norms, to the bit' : `the first difference is in update ${parted}`;
  const curve = losses.map(({ step, a: one, b: two }) => [
    step,
    one.toFixed(4),
    two.toFixed(4),
    (two - one).toExponential(1),
  ]);
  const learning =
    common === 0
      ? 'no update that both have\n'
      : `${common} updates in both: ${same}\n\n${formatTable([['update', 'loss A', 'loss B', 'B - A'], ...curve])}`;
  return [facts, settings, learning].join('\n');
}

import { basename } from 'node:path';
import { formatCount, formatDuration } from '../../base/format-amount.js';
import { readSteps, type KnownRun } from '../../job/shared/run-list.js';
import { formatTable } from '../shared/table.js';

/** A run in numbers, as `mbridge runs --json` has it. */
export interface RunSummary {
  readonly name: string;
  readonly folder: string;
  readonly state: KnownRun['state'];
  /** ISO 8601. */
  readonly started: string;
  readonly device: string;
  readonly ranks: number;
  readonly layout: Readonly<Record<string, number>>;
  /** The last update of which the metrics tell, and the last that there is to be. */
  readonly updates: number;
  readonly train_iters: number;
  /** Of that update; null where there is none, or it was no number. */
  readonly loss: number | null;
  readonly tokens: number;
  /** From the start of the first session to the last word of the last one, or the last step; null where neither is known. */
  readonly wall_s: number | null;
}

export function describeRun({ folder, record, state, result }: KnownRun): RunSummary {
  const steps = readSteps(folder);
  const last = [...steps.values()].reduce((a, b) => (b.step > a.step ? b : a), { step: 0, loss: NaN });
  const { config, started, device, nproc, layout } = record;
  const { global_batch_size: batch, train_iters } = config.train;
  const ended =
    'time' in last && typeof last.time === 'string' ? (Date.parse(last.time) - Date.parse(started)) / 1000 : null;
  const said = record.sessions.length === 1 ? result?.['wall_s'] : undefined;
  return {
    name: basename(folder),
    ...{ folder, state, started, device, ranks: nproc, layout, updates: last.step, train_iters },
    loss: Number.isFinite(last.loss) ? last.loss : null,
    tokens: last.step * batch * config.model.seq_length,
    wall_s: typeof said === 'number' ? said : ended,
  };
}

/** The runs as text, a line each. */
export function runsTable(runs: readonly RunSummary[]): string {
  const rows = runs.map(({ name, state, updates, train_iters: all, loss, tokens, wall_s: seconds, ranks }) => [
    name,
    state,
    `${updates}/${all}`,
    loss === null ? '-' : loss.toFixed(4),
    formatCount(tokens),
    seconds === null ? '-' : formatDuration(seconds),
    ranks,
  ]);
  return formatTable([['run', 'state', 'updates', 'loss', 'tokens', 'time', 'ranks'], ...rows]);
}

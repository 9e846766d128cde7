import { basename, join } from 'node:path';
import { staysInside } from '../base/own-file.js';
import { ERROR_FILE, rankFolder } from '../job/shared/run-folder.js';
import type { KnownRun } from '../job/shared/run-list.js';
import { PEER_LOST, readWorkerReport, type WorkerReport } from '../job/shared/worker-report.js';
import type { RunError, RunView } from './view/run-view.js';

/** What a page says of a run beside its curves. */
export function describeRun(run: KnownRun, id: string): RunView {
  const { folder, record, state } = run;
  const { config, device, nproc, layout, versions, sessions } = record;
  const sizes = ['tp', 'cp', 'dp', 'pp', 'vpp'].map((name) => `${name} ${layout[name] ?? 1}`);
  const precision = config.mixed_precision;
  return {
    ...{ id, name: basename(folder), folder, state, started: record.started, device },
    updates: config.train.train_iters,
    tokensPerUpdate: config.train.global_batch_size * config.model.seq_length,
    error: errorOf(run),
    config: flatConfig(config),
    environment: [
      ['mbridge', versions.mbridge],
      ['Node.js', `${versions.node} on ${versions.platform}`],
      ['device', `${device}, ${precision}`],
      ['ranks', `${nproc}: ${sizes.join(', ')}`],
      ['folder', folder],
      ...sessions.map(({ started, argv }, i): [string, string] => [
        i === 0 ? 'started' : `went on (${i})`,
        `${started}\n${commandOf(argv)}`,
      ]),
    ],
  };
}

/** Without the places of node and of the program. */
function commandOf(argv: readonly string[]): string {
  const [, program = '', ...rest] = argv;
  return [basename(program).replace(/\.js$/, ''), ...rest].join(' ');
}

function flatConfig(config: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(config).flatMap(([section, content]: [string, unknown]) =>
      typeof content === 'object' && content !== null && !Array.isArray(content)
        ? Object.entries(content).map(([key, value]) => [`${section}.${key}`, value])
        : [[section, content]],
    ),
  );
}

/** Why it failed, as its result says; else, as the first rank that failed by itself says. */
function errorOf({ state, result, folder, record }: KnownRun): RunError | null {
  if (state === 'running' || state === 'done' || state === 'stopped') return null;
  const told = result?.['error'];
  if (typeof told === 'object' && told !== null) return asError(told as Record<string, unknown>);
  const reports = Array.from({ length: record.nproc }, (_, rank) =>
    staysInside(folder, join(rankFolder('', rank), ERROR_FILE)) ? readWorkerReport(folder, rank) : undefined,
  );
  const own = reports.filter((report): report is WorkerReport => report !== undefined && report.code !== PEER_LOST);
  const first = own.sort((a, b) => a.time_ms - b.time_ms)[0];
  return first === undefined ? null : asError({ ...first });
}

function asError({ rank, step, code, message, hint }: Readonly<Record<string, unknown>>): RunError {
  const number = (value: unknown): number | null => (typeof value === 'number' ? value : null);
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  return {
    ...{ rank: number(rank), step: number(step), code: text(code), message: text(message) },
    hint: typeof hint === 'string' ? hint : null,
  };
}

import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { FlightRecord } from './flight-record.js';
import type { WorkerEvent } from './messages.js';
import type { RunConfig } from '../../config/schema.js';
import { FolderClaim } from '../../base/folder-claim.js';
import { systemError } from '../../base/system-error.js';
import { makeFolder } from '../../base/make-folder.js';
import { packageVersion } from '../../base/package-root.js';
import { OUTPUT_SCHEMA } from '../../outputs/line.js';
import { snakeKeys } from '../../outputs/snake-keys.js';

/** Where runs are, unless --log-dir says otherwise, and the files of one: `run.json`, `resolved.yaml`, `metrics.ndjson`, and a folder for each rank. */
export const RUNS_FOLDER = 'runs';
export const RUN_FILE = 'run.json';
const RESOLVED_FILE = 'resolved.yaml';
export const ERROR_FILE = 'error.json';
/** A rank's last collectives, where one hung or a rank died. */
const FLIGHT_FILE = 'flight.json';
export const LOG_FILE = 'log.ndjson';
export const STDERR_FILE = 'stderr.log';
export const STDOUT_FILE = 'stdout.log';
export const METRICS_FILE = 'metrics.ndjson';
/** What each rank's own work takes. */
export const RANK_TIMES_FILE = 'rank-times.ndjson';
/** The last line of `--json`, once the run has ended. */
export const RESULT_FILE = 'result.json';

/** What `run.json` holds: enough to know what ran, and to go on with it. */
export interface RunRecord {
  name: string;
  /** ISO 8601, of the first session. */
  started: string;
  /** When the run was begun and gone on with in this folder, with the command line of each. */
  sessions: readonly { readonly started: string; readonly argv: readonly string[] }[];
  versions: { mbridge: string; node: string; platform: string };
  argv: readonly string[];
  device: 'cpu' | 'cuda';
  nproc: number;
  layout: Readonly<Record<string, number>>;
  config: RunConfig;
  /** Whether `checkpoint.save` is in the run's folder because nothing else was said. */
  saves_in_run_folder: boolean;
  /** Module of the program's own that the ranks run; null for the standard training loop. */
  worker: string | null;
  /** What a worker module of its own was given beside the configuration. */
  options?: unknown;
}

/** What a run says of itself for its record. */
export type RunFacts = Omit<RunRecord, 'versions' | 'started' | 'sessions' | 'saves_in_run_folder'> & {
  readonly savesInRunFolder: boolean;
};

export function rankFolder(runDir: string, rank: number): string {
  return join(runDir, `rank-${rank}`);
}

/** `<root>/20261122-113005-<name>`, in local time. */
export function defaultRunFolder(name: string, now: Date, root = RUNS_FOLDER): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const date = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  const time = `${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
  return join(root, `${date}-${time}-${name.replace(/[^\w.-]+/g, '_')}`);
}

/**
 * Makes the run's folder and those of the ranks, and returns its absolute path. A default folder is always new (`-2`, `-3`
 * where two runs start in one second); a folder that was asked for may exist: its logs are appended to, its old result
 * and failure reports are removed. Fails with MB_RUN_FOLDER (exit 7).
 * @param own called before anything in the folder is touched
 */
export function createRunFolder(
  name: string,
  asked: string | undefined,
  ranks: readonly number[],
  own: (folder: string) => void = () => undefined,
): string {
  try {
    const folder = asked === undefined ? newFolder(resolve(defaultRunFolder(name, new Date()))) : resolve(asked);
    makeFolder(folder);
    own(folder);
    for (const rank of ranks) makeFolder(rankFolder(folder, rank));
    for (const entry of readdirSync(folder)) {
      if (!/^rank-\d+$/.test(entry)) continue;
      for (const old of [ERROR_FILE, FLIGHT_FILE]) rmSync(join(folder, entry, old), { force: true });
    }
    rmSync(join(folder, RESULT_FILE), { force: true });
    return folder;
  } catch (error) {
    throw runFolderError(error);
  }
}

/**
 * As {@link createRunFolder}, for this process alone until the claim is released.
 * @throws MbridgeError MB_FOLDER_CLAIMED (exit 7) where another run logs there
 */
export function claimRunFolder(
  name: string,
  asked: string | undefined,
  ranks: readonly number[],
): { runDir: string; claim: FolderClaim } {
  const held: { claim?: FolderClaim } = {};
  try {
    const runDir = createRunFolder(name, asked, ranks, (folder) => {
      held.claim = new FolderClaim(folder, 'run', 'give this run a folder of its own with --log-dir');
    });
    return { runDir, claim: held.claim as FolderClaim };
  } catch (error) {
    held.claim?.release();
    throw error;
  }
}

function runFolderError(cause: unknown): unknown {
  const about = {
    code: 'MB_RUN_FOLDER',
    what: "make the run's folder",
    hint: 'name a folder that can be written with --log-dir',
  };
  return systemError(cause, about) ?? cause;
}

/** Writes run.json and resolved.yaml. Fails with MB_RUN_FOLDER (exit 7). */
export async function writeRunRecord(runDir: string, record: RunFacts): Promise<void> {
  const { stringify } = await import('yaml'); // 50 ms that workers need not pay
  const started = new Date().toISOString();
  const before = readRunRecord(runDir)?.sessions ?? [];
  const { savesInRunFolder, config } = record;
  const full: RunRecord = {
    name: record.name,
    started: before[0]?.started ?? started,
    sessions: [...before, { started, argv: record.argv }],
    versions: {
      mbridge: packageVersion(),
      node: process.versions.node,
      platform: `${process.platform}-${process.arch}`,
    },
    argv: record.argv,
    device: record.device,
    nproc: record.nproc,
    layout: snakeKeys(record.layout),
    config,
    saves_in_run_folder: savesInRunFolder,
    worker: record.worker,
    ...(record.options === undefined ? {} : { options: record.options }),
  };
  try {
    const file = { schema: OUTPUT_SCHEMA, type: 'run_record', ...full };
    writeAtomically(join(runDir, RUN_FILE), `${JSON.stringify(file, null, 2)}\n`);
    // Run again, it is another run, which saves in its own folder.
    const { save, ...checkpoint } = config.checkpoint;
    const again = { ...config, checkpoint: savesInRunFolder ? checkpoint : { save, ...checkpoint } };
    writeAtomically(join(runDir, RESOLVED_FILE), stringify(again));
  } catch (error) {
    throw runFolderError(error);
  }
}

/** What a run's folder says ran there; undefined where there is no record that can be read, or one without its sessions. */
export function readRunRecord(runDir: string): RunRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(join(runDir, RUN_FILE), 'utf8')) as Partial<RunRecord>;
    return Array.isArray(record.sessions) && record.config !== undefined ? (record as RunRecord) : undefined;
  } catch {
    return undefined;
  }
}

/** Leaves how a run ended in its folder. One that has ended does not fail because there is no room to say so. */
export function writeRunResult(runDir: string, result: WorkerEvent): void {
  try {
    writeAtomically(join(runDir, RESULT_FILE), `${JSON.stringify({ schema: OUTPUT_SCHEMA, ...result }, null, 2)}\n`);
  } catch {
    // what is in the folder tells how far it came
  }
}

/** Leaves what a rank's flight recorder holds. */
export function writeFlightRecord(runDir: string, record: FlightRecord): void {
  writeAtomically(join(rankFolder(runDir, record.rank), FLIGHT_FILE), `${JSON.stringify(record, null, 1)}\n`);
}

/** A reader sees the old file or the whole new one. */
export function writeAtomically(file: string, text: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, text);
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function newFolder(wanted: string): string {
  makeFolder(dirname(wanted));
  for (let attempt = 1; ; attempt++) {
    const folder = attempt === 1 ? wanted : `${wanted}-${attempt}`;
    try {
      mkdirSync(folder);
      return folder;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

import type { RunConfig } from '../../config/schema.js';
import type { WorkerEvent } from '../shared/messages.js';
import type { ProgramStart } from '../shared/program-start.js';
import type { RunStart } from '../shared/run-start.js';
import type { Restarts } from './restarts.js';

/** One of several nodes, and where their launchers meet. */
export interface NodePlace {
  /** Nodes of the run. */
  readonly count: number;
  /** Of this one, from 0. */
  readonly rank: number;
  /** Node 0 by name or address, and the port on which its launcher serves the store. */
  readonly host: string;
  readonly port: number;
}

/** One run on this machine: what to start, and how to show it. */
export interface LaunchJob extends RunStart {
  /** Short name for the run's folder: the recipe or the file's base name. */
  name: string;
  /** Resolved and validated; handed to the workers, and written to the run's folder. */
  config: RunConfig;
  /** Worker processes on this machine. */
  nproc: number;
  /** Where the run is on several nodes: this one of them. Each has a launcher, and `nproc` processes. */
  nodes?: NodePlace;
  device: 'cpu' | 'cuda';
  /** Cores to share among the workers; all that this process may use by default. */
  cores?: number;
  /** Folder of the run; `runs/<timestamp>-<name>` by default. */
  runDir?: string;
  /** The command line, for run.json. */
  argv: readonly string[];
  /** The parallel layout, for run.json: {tp, cp, dp, pp, ...}. */
  layout?: Readonly<Record<string, number>>;
  /** NDJSON instead of readable lines on stdout. */
  json?: boolean;
  /** Ranks whose info lines the console shows; [0] by default. Warnings are shown from all. */
  consoleRanks?: 'all' | readonly number[];
  /**
   * How long workers may take to end after the first signal, or once they are done, before they are killed; 30 s, or
   * 10 min where the run saves.
   */
  gracePeriodMs?: number;
  /** Begins again after a failure that may be gone at the next try; never by default. */
  restarts?: Restarts;
  /** Keeps the copies that ranks make of their state in memory, for restarts. Of a run on one node. */
  keepsCopies?: boolean;
  /** Absolute path of another module that exports runWorker (tests). */
  workerModule?: string;
  /** The program whose own functions the ranks run: each rank is this program, started again. Not with `workerModule`. */
  program?: ProgramStart;
  /** What such a module needs to know: its `context.options`. Goes through JSON. */
  options?: unknown;
  /** Called with every event of the workers as it comes, before it is printed, with the rank that sent it. */
  onEvent?: (event: WorkerEvent, rank: number) => void;
  /** What is printed in the place of an event; null for nothing. All events are printed as they are by default. */
  shown?: (event: WorkerEvent, runDir: string) => WorkerEvent | null;
  /** Where results and everything else go; this process's stdout and stderr by default. */
  stdout?: NodeJS.WritableStream;
  stderr?: NodeJS.WritableStream;
}

/** How a run ended. What the user must know has been printed. */
export interface LaunchResult {
  /** To be used as this process's own: 0, one of EXIT, or 128 + n after a signal. */
  exitCode: number;
  runDir: string;
  /** The last line of `--json`: ok, exit_code, error, ..., with what a worker sent as the result. */
  result: WorkerEvent;
}

const DEFAULT_GRACE_MS = 30_000;
/** A run that stops saves first, and a large state takes its time on a slow disk. */
const SAVING_GRACE_MS = 600_000;

/** Ranks of the whole run. */
export function worldSize({ nproc, nodes }: LaunchJob): number {
  return nproc * (nodes?.count ?? 1);
}

/** How long workers that were asked to stop may take. */
export function graceOf({ gracePeriodMs, config }: LaunchJob): number {
  return gracePeriodMs ?? (config.checkpoint.save !== null ? SAVING_GRACE_MS : DEFAULT_GRACE_MS);
}

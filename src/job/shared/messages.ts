import type { RunConfig } from '../../config/schema.js';
import type { StopSignal } from './stop-signals.js';
import type { WorkerReport } from './worker-report.js';

export type { StopSignal } from './stop-signals.js';

/** What launcher and worker say to each other: environment variables and messages over Node's IPC channel. */

/** Environment variables of our own; the rest is torchrun's (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, ...). */
export const ENV = {
  /** Folder of the run, absolute. */
  runDir: 'MBRIDGE_RUN_DIR',
  /** The run's secret: every connection to the store must prove that it knows it. */
  token: 'MBRIDGE_TOKEN',
  /** host:port of a store that already runs (set by our launcher). Without it rank 0 starts one. */
  store: 'MBRIDGE_STORE',
  /** Port of the store that rank 0 starts; MASTER_PORT + 1 without it. */
  storePort: 'MBRIDGE_STORE_PORT',
  threads: 'MBRIDGE_THREADS',
  /** Lowest level of the log that this rank shows on the console. */
  consoleLevel: 'MBRIDGE_CONSOLE_LEVEL',
  /** Process id of the launcher: the worker dies with it. */
  launcherPid: 'MBRIDGE_LAUNCHER_PID',
  /** Number of the file in which it records its collectives, for the launcher to read; empty for none. */
  flight: 'MBRIDGE_FLIGHT_FILE',
  /** Absolute path of the module that exports runWorker. */
  workerModule: 'MBRIDGE_WORKER_MODULE',
  /** In a program that is started again as a rank: hash of the configuration that it asked the run for. */
  asked: 'MBRIDGE_ASKED',
} as const;

/** What a worker under our launcher is told to run. */
export interface WorkerRun {
  /** Resolved and validated. */
  readonly config: RunConfig;
  readonly device: 'cpu' | 'cuda';
  /** What the worker's module needs to know. */
  readonly options?: unknown;
  /** Whether an attempt before this one has failed. */
  readonly again?: boolean;
  /** Where the launcher keeps copies of the ranks' state: those of earlier attempts. */
  readonly memory?: KeptCopies;
}

/** The copies in memory that a launcher has, as the worker's MemoryKeeper says of them. */
export interface KeptCopies {
  readonly step: number | null;
  readonly paths: readonly (string | null)[];
}

/** The last checkpoint of a run. */
export interface SavedCheckpoint {
  /** Updates that it holds. */
  step: number;
  /** Absolute or as checkpoint.save gave it. */
  folder: string;
}

/** One finished step. Keys are those of the JSON output; a metric that is not known is left out. */
export interface StepEvent {
  type: 'step';
  /** From 1. */
  step: number;
  loss: number;
  grad_norm: number;
  lr: number;
  /** Unmasked tokens of the global batch. */
  tokens: number;
  step_time_ms: number;
  /** For which the host waited for the update's samples on the rank that reports. */
  data_ms?: number;
  /** ISO 8601, when it was reported. */
  time?: string;
  /** Since this process began the first of its updates. */
  elapsed_s?: number;
  /** Until the last update, at the pace so far. */
  eta_s?: number;
  /** Of all updates, also of those before a resume: positions of the samples, masked or not. */
  tokens_seen?: number;
  /** In use on the rank that reports: of its GPU, or of its process on a CPU. */
  memory_bytes?: number;
  tokens_per_s_per_device?: number;
  tflops_per_device?: number;
  /** 0..1. */
  mfu?: number;
  [key: string]: unknown;
}

/** Types of events that are lines of `--json` alone: of what text says on stderr. */
export const EVENT = {
  /** The first: what runs, and where. */
  start: 'start',
  /** The loss jumped, or is above that of guessing. */
  lossWarning: 'loss_warning',
  /** Ranks that are slower than the others. */
  straggler: 'straggler',
  /** No rank begins an update. */
  stall: 'stall',
  /** Ranks or nodes have not come yet. */
  waiting: 'waiting',
  /** Another warning. */
  warning: 'warning',
  /** A checkpoint is whole. */
  saved: 'saved',
  /** The run failed, and begins again from its last checkpoint. */
  restart: 'restart',
} as const;

/** What an evaluation came to. */
export interface EvaluationNumbers {
  /** Mean over the counted tokens, in nats. */
  loss: number;
  perplexity: number;
  /** Absent where the data do not say how many bytes their tokens stand for. */
  bits_per_byte?: number;
  /** Counted tokens. */
  tokens: number;
  eval_s: number;
}

/** One set evaluated after update `step`; 0 before the first. */
export interface EvaluationEvent extends EvaluationNumbers {
  type: 'evaluation';
  step: number;
  set: string;
  [key: string]: unknown;
}

/** Facts for the last line of output. The launcher adds ok, exit_code, run_dir and wall_s. */
export interface ResultEvent {
  type: 'result';
  [key: string]: unknown;
}

/** Anything else a worker wants on stdout: printed as it is with --json, as `type key=value ...` without. */
export interface OtherEvent {
  type: string;
  [key: string]: unknown;
}

export type WorkerEvent = StepEvent | EvaluationEvent | ResultEvent | OtherEvent;

export type WorkerMessage =
  | { kind: 'event'; event: WorkerEvent }
  /** One line of the log (JSON), for the console. */
  | { kind: 'log'; line: string }
  /** It has begun its first step, or asks for requests to stop: from now on it ends in order. */
  | { kind: 'looping' }
  /** A checkpoint is whole. */
  | { kind: 'saved'; saved: SavedCheckpoint }
  /** The memory of this rank's copies, to be kept beyond its end: a descriptor of its process. */
  | { kind: 'memory'; fd: number }
  /** This rank's copy of an update is whole. */
  | { kind: 'copied'; step: number }
  /** The process is about to exit, and has tried to write the report. Its exit may hang in a library's clean-up. */
  | { kind: 'failed'; report: WorkerReport }
  /**
   * runWorker has returned, early if a signal asked for it, or was left `atOnce`, for it had nothing to finish. Exit code
   * 0 without this message is a failure.
   */
  | { kind: 'done'; stopped: 'no' | StopSignal; atOnce: boolean };

export type LauncherMessage =
  /** The first one: a {@link WorkerRun} as JSON. The configuration itself, so that no other run can change it. */
  | { kind: 'run'; run: string }
  | { kind: 'stop'; signal: StopSignal }
  /** All ranks have whole copies of the update. */
  | { kind: 'copied'; step: number };

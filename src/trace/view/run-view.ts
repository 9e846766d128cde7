import type { TraceEvent, TraceFile } from './trace-event.js';

/** A run in the list of those that there are. */
export interface RunItem {
  /** Unlike any other's. */
  readonly id: string;
  readonly name: string;
  readonly state: 'running' | 'done' | 'stopped' | 'failed' | 'killed';
  /** ISO 8601. */
  readonly started: string;
}

/** What is said of a run beside its curves. Plain data. */
export interface RunView extends RunItem {
  readonly folder: string;
  /** Updates that there are to be. */
  readonly updates: number;
  readonly tokensPerUpdate: number;
  readonly device: string;
  readonly error: RunError | null;
  /** `section.key` and its value. */
  readonly config: Readonly<Record<string, unknown>>;
  /** What it ran on and how it was started, as name and text. */
  readonly environment: readonly (readonly [string, string])[];
}

export interface RunError {
  readonly rank: number | null;
  readonly step: number | null;
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
}

/** Lines that were added to a file of a run; `reset`: what was told of the file before holds no longer. */
export interface TraceLines {
  readonly id: string;
  readonly file: TraceFile;
  readonly reset: boolean;
  readonly events: readonly TraceEvent[];
}

/** A run with all of its lines, as a report holds it. */
export interface WholeRun {
  readonly view: RunView;
  readonly lines: readonly TraceLines[];
  /** Updates of which the metrics tell, where that is more than are in `lines`. */
  readonly thinnedFrom: number | null;
}

import { readFileSync, readdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { isClaimed } from '../../base/folder-claim.js';
import type { StepEvent, WorkerEvent } from './messages.js';
import { RUNS_FOLDER, METRICS_FILE, RESULT_FILE, readRunRecord, type RunRecord } from './run-folder.js';

/** A run as its folder tells of it. */
export interface KnownRun {
  /** Absolute. */
  readonly folder: string;
  readonly record: RunRecord;
  /** `running`; `done`, `stopped` or `failed` where it said so; `killed` where it ended without a word. */
  readonly state: 'running' | 'done' | 'stopped' | 'failed' | 'killed';
  /** The last line of `--json`, of a run that has ended. */
  readonly result: WorkerEvent | undefined;
}

/** Reads a run's folder; undefined where none of the standard training loop has been. */
export function readRun(folder: string): KnownRun | undefined {
  const record = readRunRecord(folder);
  if (record === undefined || record.worker !== null) return undefined;
  const result = readResult(folder);
  return { folder: resolve(folder), record, result, state: stateOf(folder, result) };
}

/** The runs in a folder of runs, the one that was begun or gone on with last at the end. */
export function listRuns(root: string): KnownRun[] {
  let names: string[];
  try {
    names = readdirSync(root);
  } catch {
    return [];
  }
  const runs = names.flatMap((name) => readRun(join(root, name)) ?? []);
  const time = ({ record }: KnownRun): number => Date.parse(record.sessions.at(-1)?.started ?? record.started);
  return runs.sort((a, b) => time(a) - time(b) || basename(a.folder).localeCompare(basename(b.folder)));
}

/**
 * The run that a user names by its folder, or by its name in `runs/`; the last one there where nobody says which.
 * @throws MbridgeError MB_NO_RUN (exit 7) where there is none
 */
export function findRun(named: string | undefined): KnownRun {
  if (named === undefined) {
    const latest = listRuns(RUNS_FOLDER).at(-1);
    if (latest !== undefined) return latest;
    const hint = 'start one with mbridge pretrain, or name the folder of a run';
    throw new MbridgeError('io', 'MB_NO_RUN', `${RUNS_FOLDER}/ holds no run`, { hint });
  }
  const found = readRun(named) ?? readRun(join(RUNS_FOLDER, named));
  if (found !== undefined) return found;
  throw new MbridgeError('io', 'MB_NO_RUN', `${named} is no run of mbridge pretrain`, {
    hint: 'name a folder that it made, with run.json in it; mbridge runs lists those of runs/',
  });
}

/**
 * The steps that a run's metrics hold, by number. Of a step that was run again after a failure the last counts.
 * A line that was not written to its end is left out.
 */
export function readSteps(folder: string): Map<number, StepEvent> {
  return new Map(readMetrics(folder, 'step').map((event) => [event['step'] as number, event as StepEvent]));
}

/** The lines of a run's metrics that are of a type, as they were written. */
function readMetrics(folder: string, type: string): WorkerEvent[] {
  let text: string;
  try {
    text = readFileSync(join(folder, METRICS_FILE), 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    try {
      const event = JSON.parse(line) as WorkerEvent;
      return event.type === type ? [event] : [];
    } catch {
      return [];
    }
  });
}

function readResult(folder: string): WorkerEvent | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, RESULT_FILE), 'utf8')) as WorkerEvent;
  } catch {
    return undefined;
  }
}

function stateOf(folder: string, result: WorkerEvent | undefined): KnownRun['state'] {
  if (isClaimed(folder, 'run')) return 'running';
  if (result === undefined) return 'killed';
  if (result['ok'] === true) return 'done';
  return typeof result['signal'] === 'string' ? 'stopped' : 'failed';
}

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { OUTPUT_SCHEMA } from '../../outputs/line.js';
import { ERROR_FILE, rankFolder, writeAtomically } from './run-folder.js';

/** What a failing worker leaves in `<run>/rank-<r>/error.json`. */
export interface WorkerReport {
  rank: number;
  /** ISO 8601, for people. */
  time: string;
  /** Unix milliseconds with fractions, to tell which rank failed first. */
  time_ms: number;
  /** The step it was in; 0 before the first. */
  step: number;
  code: string;
  exit_code: number;
  message: string;
  hint?: string;
  details?: Readonly<Record<string, unknown>>;
  /** Only for errors that are bugs. */
  stack?: string;
}

/** A rank that failed only because another did carries this code, and is never shown as the cause if there is another. */
export const PEER_LOST = 'MB_PEER_LOST';

export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

export function writeWorkerReport(runDir: string, report: WorkerReport): void {
  const file = { schema: OUTPUT_SCHEMA, type: 'rank_error', ...report };
  writeAtomically(join(rankFolder(runDir, report.rank), ERROR_FILE), `${JSON.stringify(file, null, 2)}\n`);
}

/** Removes what an earlier attempt of the rank has left. */
export function removeWorkerReport(runDir: string, rank: number): void {
  try {
    rmSync(join(rankFolder(runDir, rank), ERROR_FILE), { force: true });
  } catch {
    // a disk that has failed must not end a run that could go on
  }
}

/** The rank's report, or undefined if it left none that can be read. */
export function readWorkerReport(runDir: string, rank: number): WorkerReport | undefined {
  try {
    return JSON.parse(readFileSync(join(rankFolder(runDir, rank), ERROR_FILE), 'utf8')) as WorkerReport;
  } catch {
    return undefined;
  }
}

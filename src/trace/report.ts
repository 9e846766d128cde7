import { join } from 'node:path';
import { writeAtomically } from '../job/shared/run-folder.js';
import { readRun, type KnownRun } from '../job/shared/run-list.js';
import { wholePage } from './page-html.js';
import { readRunsToShow, readWholeRun } from './whole-run.js';

/** Of a run's folder: its page, written when the run ends. */
export const REPORT_FILE = 'report.html';

/** Runs as one page that needs nothing else: curves, configuration, environment and samples. */
export async function reportOf(runs: readonly KnownRun[]): Promise<string> {
  return wholePage(await readRunsToShow(runs));
}

/** Leaves the report of a run that has ended in its folder. Says why where it cannot; the run is what it is without. */
export async function leaveReport(runDir: string, warn: (text: string) => void): Promise<void> {
  const path = join(runDir, REPORT_FILE);
  try {
    const run = readRun(runDir);
    if (run !== undefined) writeAtomically(path, wholePage([await readWholeRun(run, '0')]));
  } catch (cause) {
    warn(`${path} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

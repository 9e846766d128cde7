import { join } from 'node:path';
import { MbridgeError } from '../base/errors.js';
import type { KnownRun } from '../job/shared/run-list.js';
import { describeRun } from './describe-run.js';
import { NdjsonTail } from './ndjson-tail.js';
import { thin } from './view/thin.js';
import { TRACE_FILES, readTraceLine, type TraceEvent, type TraceFile } from './view/trace-event.js';
import type { TraceLines, WholeRun } from './view/run-view.js';

/** Updates of a run that a page holds: more than a screen has points, and some hundred kilobytes. */
const MOST_UPDATES = 2000;

/** A run with all that its folder tells, as it is now. */
export async function readWholeRun(run: KnownRun, id: string): Promise<WholeRun> {
  const view = describeRun(run, id);
  const files = Object.keys(TRACE_FILES) as TraceFile[];
  const read = await Promise.all(files.map(async (file) => [file, await readAll(run.folder, file)] as const));
  let thinnedFrom: number | null = null;
  const lines = read.map(([file, events]): TraceLines => {
    const thinned = thin(events, MOST_UPDATES);
    if (thinned.from !== null) thinnedFrom = thinned.from;
    return { id, file, reset: true, events: thinned.events };
  });
  return { view, lines, thinnedFrom };
}

/** {@link readWholeRun} of runs that have begun. @throws MbridgeError MB_NO_RUN (exit 7) for one without an update */
export async function readRunsToShow(runs: readonly KnownRun[]): Promise<WholeRun[]> {
  return Promise.all(
    runs.map(async (run, i) => {
      const whole = await readWholeRun(run, String(i));
      if (whole.lines.some(({ events }) => events.some(({ type }) => type === 'step'))) return whole;
      throw new MbridgeError('io', 'MB_NO_RUN', `${run.folder} tells of no update`, {
        hint: 'name a run that has begun to train; its metrics.ndjson has a line an update',
      });
    }),
  );
}

async function readAll(folder: string, file: TraceFile): Promise<TraceEvent[]> {
  const tail = new NdjsonTail(join(folder, TRACE_FILES[file]));
  const events: TraceEvent[] = [];
  for (let more = true; more;) {
    const added = await tail.read();
    if (added.reset) events.length = 0;
    for (const line of added.lines) {
      const event = readTraceLine(file, line);
      if (event !== null) events.push(event);
    }
    more = added.more;
  }
  return events;
}

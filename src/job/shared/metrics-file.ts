import { join } from 'node:path';
import { eventJson } from '../../outputs/line.js';
import { BestEffortFile, openAtLineStart } from './best-effort-file.js';
import type { WorkerEvent } from './messages.js';
import { METRICS_FILE } from './run-folder.js';

/**
 * The run's `metrics.ndjson`: each event that names its step, a line as `--json` prints it, so that a run's numbers are
 * on disk whoever reads its output. Written by the worker that has them, a whole line at a time at the end of the file:
 * a run in the folder of an earlier one goes on there.
 */
export class MetricsFile {
  readonly #file: BestEffortFile;

  constructor(runDir: string, warn: (text: string) => void) {
    this.#file = new BestEffortFile(join(runDir, METRICS_FILE), openAtLineStart, warn);
  }

  add(event: WorkerEvent): void {
    if (typeof event['step'] === 'number') this.#file.append(Buffer.from(`${eventJson(event)}\n`));
  }
}

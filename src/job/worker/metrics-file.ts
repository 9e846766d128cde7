import { join } from 'node:path';
import type { Logger } from '../../base/logger.js';
import { BestEffortFile, openAtLineStart } from '../shared/best-effort-file.js';
import type { WorkerEvent } from '../shared/messages.js';
import { METRICS_FILE } from '../shared/run-folder.js';

/**
 * The run's `metrics.ndjson`: each event that names its step, a line as `--json` prints it, so that a run's numbers are
 * on disk whoever reads its output. Written by the worker that has them, a whole line at a time at the end of the file:
 * a run in the folder of an earlier one goes on there.
 */
export class MetricsFile {
  readonly #file: BestEffortFile;

  constructor(runDir: string, log: Logger) {
    this.#file = new BestEffortFile(join(runDir, METRICS_FILE), openAtLineStart, (text) => {
      log.warn(text);
    });
  }

  add(event: WorkerEvent): void {
    if (typeof event['step'] === 'number') this.#file.append(Buffer.from(`${JSON.stringify(event)}\n`));
  }
}

import { fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { WorkerEvent } from './messages.js';
import { METRICS_FILE } from './run-folder.js';
import { BestEffortFile } from './best-effort-file.js';

const NEWLINE = 0x0a;

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
    if (typeof event['step'] === 'number') this.#file.append(Buffer.from(`${JSON.stringify(event)}\n`));
  }
}

/** Opens the file for appending, and ends a line that another run was killed in. */
function openAtLineStart(path: string): number {
  const descriptor = openSync(path, 'a+');
  const last = Buffer.alloc(1);
  const { size } = fstatSync(descriptor);
  if (size > 0 && readSync(descriptor, last, 0, 1, size - 1) === 1 && last[0] !== NEWLINE) writeSync(descriptor, '\n');
  return descriptor;
}

import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { WorkerEvent } from '../shared/messages.js';
import { METRICS_FILE } from '../shared/run-folder.js';

const NEWLINE = 0x0a;

/**
 * The run's `metrics.ndjson`: each event that names its step, a line as `--json` prints it, so that a run's numbers are
 * on disk whoever reads its output. Written by the worker that has them, a whole line at a time at the end of the file:
 * a run in the folder of an earlier one goes on there. What cannot be written is dropped after one warning.
 */
export class MetricsFile {
  readonly #path: string;
  readonly #log: Logger;
  /** Of the file, which is made with the first line; null once it could not be written. */
  #descriptor: number | null | undefined;

  constructor(runDir: string, log: Logger) {
    this.#path = join(runDir, METRICS_FILE);
    this.#log = log;
  }

  add(event: WorkerEvent): void {
    if (typeof event['step'] !== 'number' || this.#descriptor === null) return;
    const line = Buffer.from(`${JSON.stringify(event)}\n`);
    try {
      this.#descriptor ??= openAtLineStart(this.#path);
      if (writeSync(this.#descriptor, line) !== line.length) throw new Error('the disk is full');
    } catch (error) {
      if (this.#descriptor !== undefined) closeSync(this.#descriptor);
      this.#descriptor = null;
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.warn(`${this.#path} cannot be written: ${reason}; the run goes on without it`);
    }
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

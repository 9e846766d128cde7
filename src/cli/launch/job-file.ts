import { closeSync, fchmodSync, openSync, writeSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import { systemError } from '../../base/system-error.js';
import { outputLine } from '../../outputs/line.js';

/** Of new files, before the umask. */
const MODES = { script: 0o777, text: 0o666, secret: 0o600 } as const;

export interface JobFile {
  readonly text: string;
  /** stdout where it is undefined. */
  readonly file: string | undefined;
  /** A secret is for its owner alone. */
  readonly kind: keyof typeof MODES;
}

/** Writes a job. @throws MbridgeError MB_IO (exit 7), or what else the system says */
export function writeJob({ text, file, kind }: JobFile): void {
  if (file === undefined) return;
  try {
    const descriptor = openSync(file, 'w', MODES[kind]);
    try {
      if (kind === 'secret') fchmodSync(descriptor, MODES[kind]); // one that was there has rights of its own
      writeSync(descriptor, text);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw systemError(error, { what: `write ${file}` }) ?? error;
  }
}

/**
 * Writes a job where it is wanted, and says how it is started; with `json` both as an object.
 * @param start the command; null where the job goes to stdout
 */
export function tellJob(job: JobFile, start: string | null, json = false): void {
  if (job.file !== undefined) writeJob(job);
  if (json) {
    const facts = job.file === undefined || start === null ? { text: job.text } : { file: job.file, command: start };
    process.stdout.write(outputLine('result', { ok: true, ...facts }));
  } else process.stdout.write(start === null ? job.text : `${start}\n`);
}

/** An option that may be given several times. */
export function collect<T>(parse: (text: string) => T): (text: string, before: readonly T[]) => readonly T[] {
  return (text, before) => [...before, parse(text)];
}

/** A text that a file of lines can hold. */
export function parseLine(text: string): string {
  if (text !== '' && !/[\n\r\0]/.test(text)) return text;
  throw new InvalidArgumentError('Expected a text on one line.');
}

import { closeSync, fchmodSync, openSync, writeSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import { systemError } from '../../base/system-error.js';

const ANYONE = 0o777;
const OWNER = 0o600;

export interface JobFile {
  readonly text: string;
  /** stdout where it is undefined. */
  readonly file: string | undefined;
  /** Whether others must not read it. */
  readonly secret: boolean;
}

/** Writes a job. @throws MbridgeError MB_IO (exit 7), or what else the system says */
export function writeJob({ text, file, secret }: JobFile): void {
  if (file === undefined) {
    process.stdout.write(text);
    return;
  }
  try {
    const descriptor = openSync(file, 'w', secret ? OWNER : ANYONE);
    try {
      if (secret) fchmodSync(descriptor, OWNER); // one that was there has rights of its own
      writeSync(descriptor, text);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw systemError(error, { what: `write ${file}` }) ?? error;
  }
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

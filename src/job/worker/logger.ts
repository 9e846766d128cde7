import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from '../../base/logger.js';
import { LOG_FILE, rankFolder } from '../shared/run-folder.js';

/** As pino and bunyan number them. */
const LEVELS = { debug: 20, info: 30, warn: 40, error: 50, fatal: 60 } as const;

type Fields = Readonly<Record<string, unknown>>;

/**
 * A rank's logger: everything goes to its log.ndjson, one JSON object a line with `level`, `time` and `rank` (the form of
 * pino's), written at once so that nothing is lost in a crash; lines from `consoleLevel` (30 info, 40 warn) go to the
 * console as well, the failure that ends the process apart. A file that cannot be written is said once on the console,
 * and ends nothing.
 */
export function makeLogger(runDir: string, rank: number, consoleLevel: number, show: (line: string) => void): Logger {
  const append = lineAppender(join(rankFolder(runDir, rank), LOG_FILE), (text) => {
    show(JSON.stringify({ level: LEVELS.warn, rank, msg: text }));
  });
  const at = (level: number) => {
    return (...said: [string] | [Fields, string]): void => {
      const [fields, text] = said.length === 1 ? [{}, said[0]] : said;
      const line = lineOf({ level, time: new Date().toISOString(), rank }, fields, text);
      append(`${line}\n`);
      if (level >= consoleLevel && level < LEVELS.fatal) show(line);
    };
  };
  return {
    debug: at(LEVELS.debug),
    info: at(LEVELS.info),
    warn: at(LEVELS.warn),
    error: at(LEVELS.error),
    fatal: at(LEVELS.fatal),
  };
}

/** No value that a program logs may end the run: what JSON cannot hold is said in its place. */
function lineOf(head: Fields, fields: Fields, msg: string): string {
  const readable = (_: string, value: unknown): unknown =>
    typeof value === 'bigint'
      ? value.toString()
      : value instanceof Error
        ? { type: value.name, message: value.message, stack: value.stack }
        : value;
  try {
    return JSON.stringify({ ...head, ...fields, msg }, readable);
  } catch (error) {
    return JSON.stringify({ ...head, msg, fields: `cannot be written: ${error}` });
  }
}

/** Appends lines to a file, each at once. Lines that it does not take are dropped; the first failure is told to `warn`. */
function lineAppender(path: string, warn: (text: string) => void): (line: string) => void {
  const state: { descriptor: number | undefined; warned: boolean; cut: boolean } = {
    descriptor: undefined,
    warned: false,
    cut: false,
  };
  return (line) => {
    try {
      state.descriptor ??= openSync(path, 'a');
      // After a line of which only a part was taken, the next begins anew.
      const bytes = Buffer.from(state.cut ? `\n${line}` : line);
      const written = writeSync(state.descriptor, bytes);
      state.cut = written > 0 && written < bytes.length;
      if (state.cut) writeSync(state.descriptor, bytes.subarray(written));
      state.cut = false;
    } catch (error) {
      if (state.warned) return;
      state.warned = true;
      const reason = error instanceof Error ? error.message : String(error);
      warn(`${path} cannot be written, and lacks lines from here on: ${reason}`);
    }
  };
}

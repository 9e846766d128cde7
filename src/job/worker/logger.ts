import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { multistream, pino, stdTimeFunctions, type Logger } from 'pino';
import { LOG_FILE, rankFolder } from '../shared/run-folder.js';

const DEBUG_LEVEL = 20;
const WARN_LEVEL = 40;
/** How pino begins a fatal line. The only one is the failure itself, which is reported elsewhere, once for all ranks. */
const FATAL_START = '{"level":60,';

/**
 * A rank's logger: everything from debug goes to its log.ndjson, written at once so that nothing is lost in a crash;
 * lines from `consoleLevel` (a number of pino's: 30 info, 40 warn) go to the console as well. A file that cannot be written
 * is said once on the console, and ends nothing.
 */
export function makeLogger(runDir: string, rank: number, consoleLevel: number, show: (line: string) => void): Logger {
  const file = lineFile(join(rankFolder(runDir, rank), LOG_FILE), (text) => {
    show(JSON.stringify({ level: WARN_LEVEL, rank, msg: text }));
  });
  const console = {
    write: (line: string): void => {
      if (!line.startsWith(FATAL_START)) show(line);
    },
  };
  const streams = multistream([
    { level: DEBUG_LEVEL, stream: file },
    { level: consoleLevel, stream: console },
  ]);
  return pino({ level: 'debug', base: { rank }, timestamp: stdTimeFunctions.isoTime }, streams);
}

/** Appends lines to a file, each at once. Lines that it does not take are dropped; the first failure is told to `warn`. */
function lineFile(path: string, warn: (text: string) => void): { write(line: string): void } {
  const state: { descriptor: number | undefined; warned: boolean; cut: boolean } = {
    descriptor: undefined,
    warned: false,
    cut: false,
  };
  return {
    write: (line) => {
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
    },
  };
}

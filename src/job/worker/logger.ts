import { join } from 'node:path';
import { destination, multistream, pino, stdTimeFunctions, type Logger } from 'pino';
import { LOG_FILE, rankFolder } from '../shared/run-folder.js';

const DEBUG_LEVEL = 20;
/** How pino begins a fatal line. The only one is the failure itself, which is reported elsewhere, once for all ranks. */
const FATAL_START = '{"level":60,';

/**
 * A rank's logger: everything from debug goes to its log.ndjson, written at once so that nothing is lost in a crash;
 * lines from `consoleLevel` (a number of pino's: 30 info, 40 warn) go to the console as well.
 */
export function makeLogger(runDir: string, rank: number, consoleLevel: number, show: (line: string) => void): Logger {
  const file = destination({ dest: join(rankFolder(runDir, rank), LOG_FILE), sync: true, mkdir: true });
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

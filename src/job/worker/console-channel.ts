import { EXIT } from '../../base/errors.js';
import { formatEvent, formatLogLine, paintFor, type EventStyle } from '../shared/console-lines.js';
import { formatEnding } from '../shared/ending-text.js';
import type { SavedCheckpoint, WorkerEvent } from '../shared/messages.js';
import { signalExitCode } from '../shared/stop-signals.js';
import type { Channel } from './channel.js';

export interface ConsoleOptions extends EventStyle {
  rank: number;
  /** checkpoint.save */
  saveFolder: string | null;
  /** Once it is known. */
  runDir: () => string | undefined;
  /** Last update that was begun. */
  step: () => number;
  /** The reader of stdout is gone. */
  onClosedPipe: () => void;
}

/**
 * For workers that torchrun, srun or mpirun started: stdout carries results here too, and rank 0 says how the run ended,
 * as the launcher does.
 */
export function consoleChannel(options: ConsoleOptions): Channel {
  const { rank, saveFolder } = options;
  const { stdout, stderr } = process;
  const paint = paintFor(stderr);
  const state = { result: undefined as WorkerEvent | undefined, saved: undefined as SavedCheckpoint | undefined };
  const output = { broken: false, incomplete: false };
  const say = (text: string): void => void stderr.write(`${text}\n`);
  stderr.on('error', () => undefined); // there is nowhere left to say it
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (output.broken) return;
    output.broken = true;
    if (error.code === 'EPIPE') options.onClosedPipe();
    else {
      output.incomplete = true;
      say(`[r${rank}] warning: stdout cannot be written, and gets no more results: ${error.message}`);
    }
  });
  const print = (event: WorkerEvent): void => {
    if (!output.broken) stdout.write(`${formatEvent(event, options)}\n`);
  };
  return {
    event: (event) => {
      if (event.type === 'result') state.result = event;
      else print(event);
    },
    log: (line) => void stderr.write(`[r${rank}] ${formatLogLine(line, paint)}\n`),
    saved: (saved) => {
      state.saved = saved;
    },
    failed: () => undefined,
    done: (stopped, atOnce) => {
      const exitCode = stopped !== 'no' ? signalExitCode(stopped) : output.incomplete ? EXIT.io : EXIT.ok;
      const { result, saved } = state;
      const runDir = options.runDir();
      const wallS = performance.now() / 1000;
      if (result !== undefined || rank === 0) {
        const signal = stopped === 'no' ? {} : { signal: stopped, saved: saved?.folder ?? null };
        const ending = { run_dir: runDir ?? null, wall_s: Math.round(wallS * 1000) / 1000 };
        const facts = { ok: exitCode === EXIT.ok, exit_code: exitCode, ...signal, ...ending };
        if (options.json) print({ type: 'result', ...facts, ...result });
        else if (result !== undefined) print(result);
      }
      if (rank === 0 && runDir !== undefined && !atOnce) {
        const steps = typeof result?.['steps'] === 'number' ? result['steps'] : options.step();
        say(formatEnding({ signal: stopped, steps, saved, saveFolder, argv: undefined, runDir, wallS }));
      } else if (atOnce) say(`[r${rank}] ${stopped}: ended before the first update`);
      return Promise.resolve(exitCode);
    },
    onStop: () => undefined,
  };
}

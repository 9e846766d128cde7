import { EXIT } from '../../base/errors.js';
import { EventLines, formatLogLine, paintFor, warningOf, type EventStyle } from '../shared/console-lines.js';
import { formatEnding, savedBefore, type Ending } from '../shared/ending-text.js';
import { EVENT, type SavedCheckpoint, type WorkerEvent } from '../shared/messages.js';
import { writeRunResult } from '../shared/run-folder.js';
import { isTrainingResult } from '../shared/summary-text.js';
import { signalExitCode } from '../shared/stop-signals.js';
import type { Channel } from './channel.js';

export interface ConsoleOptions extends EventStyle {
  rank: number;
  /** checkpoint.save, once it is known. */
  saveFolder: () => string | null;
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
  const { rank } = options;
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
  const lines = new EventLines(options);
  const print = (event: WorkerEvent): void => {
    const line = lines.format(event, stdout.columns);
    if (line !== null && !output.broken) stdout.write(`${line}\n`);
  };
  const howFar = (signal: Ending['signal']): Omit<Ending, 'wallS'> => {
    const { result, saved } = state;
    const steps = typeof result?.['steps'] === 'number' ? result['steps'] : options.step();
    const ran = { argv: process.argv, asRank: true, runDir: options.runDir() ?? '' };
    return { signal, steps, saved, saveFolder: options.saveFolder(), result, ...ran };
  };
  const fact = (event: WorkerEvent): void => {
    if (options.json) print(event);
  };
  return {
    announce: (runDir, { lines: text, facts }) => {
      say(text.join('\n'));
      fact({ type: EVENT.start, run_dir: runDir, ...facts });
    },
    event: (event) => {
      if (event.type === 'result') state.result = event;
      else print(event);
    },
    log: (line) => {
      say(`[r${rank}] ${formatLogLine(line, paint)}`);
      const text = warningOf(line);
      if (text !== undefined) fact({ type: EVENT.warning, text, rank });
    },
    looping: () => undefined,
    saved: (saved) => {
      state.saved = saved;
      fact({ type: EVENT.saved, ...saved });
    },
    failed: () => savedBefore(howFar('no')),
    done: (stopped, atOnce) => {
      const exitCode = stopped !== 'no' ? signalExitCode(stopped) : output.incomplete ? EXIT.io : EXIT.ok;
      const { result, saved } = state;
      const runDir = options.runDir();
      const wallS = performance.now() / 1000;
      if (result !== undefined || rank === 0) {
        const signal = stopped === 'no' ? {} : { signal: stopped, saved: saved?.folder ?? null };
        const ending = { run_dir: runDir ?? null, wall_s: Math.round(wallS * 1000) / 1000 };
        const facts = { ok: exitCode === EXIT.ok, exit_code: exitCode, ...signal, ...ending };
        const closing = { type: 'result', ...facts, ...result };
        if (rank === 0 && runDir !== undefined) writeRunResult(runDir, closing);
        if (options.json) print(closing);
        else if (result !== undefined && !isTrainingResult(result)) print(result);
      }
      if (rank === 0 && runDir !== undefined && !atOnce) {
        say(formatEnding({ ...howFar(stopped), wallS }));
      } else if (atOnce) say(`[r${rank}] ${stopped}: ended before the first update`);
      return Promise.resolve(exitCode);
    },
    onStop: () => undefined,
  };
}

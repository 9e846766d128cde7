import { formatEvent, formatLogLine, paintFor, type EventStyle } from '../shared/console-lines.js';
import type { LauncherMessage, StopSignal, WorkerEvent, WorkerMessage, WorkerRun } from '../shared/messages.js';

/** Where a worker's results and console lines go: to our launcher, or to its own stdout and stderr. */
export interface Channel {
  event(event: WorkerEvent): void;
  /** One pino line. */
  log(line: string): void;
  progress(step: number): void;
  failed(): void;
  /** Resolves when everything above has left this process and the run's end is said. */
  done(stopped: 'no' | StopSignal): Promise<void>;
  onStop(listener: (signal: StopSignal) => void): void;
}

/** Over Node's IPC channel. */
export function launcherChannel(): Channel {
  const waiting = new Set<Promise<void>>();
  const send = (message: WorkerMessage): Promise<void> => {
    const sent = new Promise<void>((resolve) => {
      // A launcher that is gone takes this process with it; there is nobody to tell.
      process.send?.(message, undefined, undefined, () => {
        resolve();
      });
      if (!process.connected) resolve();
    });
    waiting.add(sent);
    void sent.then(() => waiting.delete(sent));
    return sent;
  };
  return {
    event: (event) => void send({ kind: 'event', event }),
    log: (line) => void send({ kind: 'log', line }),
    progress: (step) => void send({ kind: 'progress', step }),
    failed: () => void send({ kind: 'failed' }),
    done: async (stopped) => {
      await send({ kind: 'done', stopped });
      await Promise.all(waiting);
    },
    onStop: (listener) => {
      process.on('message', (message: LauncherMessage) => {
        if (message.kind === 'stop') listener(message.signal);
      });
    },
  };
}

/** What our launcher says first. Later messages wait until somebody listens for them. */
export async function receiveRun(): Promise<WorkerRun> {
  const message = await new Promise<LauncherMessage>((resolve) => process.once('message', resolve));
  if (message.kind === 'run') return JSON.parse(message.run) as WorkerRun;
  throw new Error(`the launcher said ${message.kind} before it said what to run`);
}

/** For workers that torchrun, srun or mpirun started: stdout carries results here too. */
export function consoleChannel(rank: number, style: EventStyle): Channel {
  const paint = paintFor(process.stderr);
  const state: { result: WorkerEvent | undefined } = { result: undefined };
  const print = (event: WorkerEvent): void => {
    process.stdout.write(`${formatEvent(event, style)}\n`);
  };
  return {
    event: (event) => {
      if (event.type === 'result') state.result = event;
      else print(event);
    },
    log: (line) => void process.stderr.write(`[r${rank}] ${formatLogLine(line, paint)}\n`),
    progress: () => undefined,
    failed: () => undefined,
    done: (stopped) => {
      if (state.result !== undefined) {
        print({ ...state.result, ok: stopped === 'no', ...(stopped === 'no' ? {} : { signal: stopped }) });
      }
      return Promise.resolve();
    },
    onStop: () => undefined,
  };
}

import { EXIT } from '../../base/errors.js';
import type {
  LauncherMessage,
  SavedCheckpoint,
  StopSignal,
  WorkerEvent,
  WorkerMessage,
  WorkerRun,
} from '../shared/messages.js';
import type { Announcement } from '../shared/run-start.js';
import type { WorkerReport } from '../shared/worker-report.js';

/** Where a worker's results and console lines go: to our launcher, or to its own stdout and stderr. */
export interface Channel {
  /** What runs, and where; where no launcher has said it. */
  announce(runDir: string, announced: Announcement): void;
  event(event: WorkerEvent): void;
  /** One line of the log (JSON). */
  log(line: string): void;
  /** The program has begun its first step, or asks for requests to stop: it is the one to end in order. */
  looping(): void;
  saved(saved: SavedCheckpoint): void;
  /** Returns what of the work is saved, where it is this process that says it. */
  failed(report: WorkerReport): readonly string[];
  /** Resolves when everything above has left this process and the run's end is said. Returns the exit code. */
  done(stopped: 'no' | StopSignal, atOnce: boolean): Promise<number>;
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
    announce: () => undefined,
    event: (event) => void send({ kind: 'event', event }),
    log: (line) => void send({ kind: 'log', line }),
    looping: () => void send({ kind: 'looping' }),
    saved: (saved) => void send({ kind: 'saved', saved }),
    failed: (report) => {
      void send({ kind: 'failed', report });
      return [];
    },
    done: async (stopped, atOnce) => {
      await send({ kind: 'done', stopped, atOnce });
      await Promise.all(waiting);
      return EXIT.ok;
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

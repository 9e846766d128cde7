import { constants } from 'node:os';
import { hangupIgnored } from '../../base/early-signals.js';

export type StopSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGUSR1' | 'SIGUSR2' | 'SIGXCPU' | 'SIGPIPE';

/** Signals that ask a run to stop. SIGPIPE is what a closed stdout counts as. */
const STOP_SIGNALS: readonly StopSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGXCPU'];

/** What schedulers send ahead of SIGTERM: it never ends a run that is stopping, nor does the first signal after it. */
const WARNINGS: readonly StopSignal[] = ['SIGUSR1', 'SIGUSR2', 'SIGXCPU'];

/**
 * The same signal within this time of the first is its echo: a terminal signals the whole process group, and npx, npm or
 * mpirun in it pass on what they got.
 */
const SIGNAL_ECHO_MS = 200;

/** Of the signals that ask a run to stop, tells the first, its echoes, and the one that ends the run at once. */
export class StopRequests {
  #first: 'no' | StopSignal = 'no';
  /** The last that was no mere warning, and when, in performance.now(). */
  #insisted: { signal: StopSignal; time: number } | undefined;

  get first(): 'no' | StopSignal {
    return this.#first;
  }

  /**
   * 'asked' by the first, 'repeated' where nothing new is asked, 'killed' by the second that is no warning.
   * @param own whether it came to this process: one that another passes on never counts as the second, nor does the first
   * of our own after it
   */
  take(signal: StopSignal, own = true): 'asked' | 'repeated' | 'killed' {
    const first = this.#first === 'no';
    if (first) this.#first = signal;
    if (own && !WARNINGS.includes(signal)) {
      const { signal: before, time = 0 } = this.#insisted ?? {};
      if (before !== undefined && (before !== signal || performance.now() - time >= SIGNAL_ECHO_MS)) return 'killed';
      this.#insisted ??= { signal, time: performance.now() };
    }
    return first ? 'asked' : 'repeated';
  }
}

/** Hands this process's stop signals to `listener` until the returned function is called. */
export function listenForSignals(listener: (signal: StopSignal) => void): () => void {
  // Where nohup has it ignored, a listener of ours does that; see base/early-signals.ts.
  const signals = STOP_SIGNALS.filter((signal) => signal !== 'SIGHUP' || !hangupIgnored());
  const handlers = signals.map((signal) => {
    const handler = (): void => {
      listener(signal);
    };
    process.on(signal, handler);
    return { signal, handler };
  });
  return () => {
    for (const { signal, handler } of handlers) process.off(signal, handler);
  };
}

/** The exit code of a process that a signal ended, as shells count it. */
export function signalExitCode(signal: StopSignal): number {
  return 128 + constants.signals[signal];
}

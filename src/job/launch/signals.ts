import { constants } from 'node:os';
import type { StopSignal } from '../shared/messages.js';

const HANDLED: readonly StopSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** Hands this process's stop signals to `listener` until the returned function is called. */
export function listenForSignals(listener: (signal: StopSignal) => void): () => void {
  const handlers = HANDLED.map((signal) => {
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

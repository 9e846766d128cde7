import { MbridgeError } from '../../base/errors.js';
import type { MemoryKeeper } from '../rendezvous/memory-keeper.js';
import type { KeptCopies, LauncherMessage, WorkerMessage } from '../shared/messages.js';

/** Our launcher as the keeper of this rank's copies, over Node's IPC channel. */
export class LauncherMemory implements MemoryKeeper {
  readonly step: number | null;
  readonly paths: readonly (string | null)[];
  #whole = 0;
  readonly #waiting = new Set<() => void>();

  constructor({ step, paths }: KeptCopies) {
    this.step = step;
    this.paths = paths;
    process.on('message', (message: LauncherMessage) => {
      if (message.kind !== 'copied') return;
      this.#whole = message.step;
      for (const wake of this.#waiting) wake();
    });
  }

  give(fd: number): void {
    send({ kind: 'memory', fd });
  }

  copied(step: number): void {
    send({ kind: 'copied', step });
  }

  async whole(step: number, timeoutMs: number): Promise<void> {
    if (this.#whole >= step) return;
    await new Promise<void>((resolve, reject) => {
      const settle = (): void => {
        if (this.#whole < step) return;
        clearTimeout(timer);
        this.#waiting.delete(settle);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(settle);
        const found = `not all ranks have copied update ${step} to memory within ${(timeoutMs / 1000).toFixed(1)} s`;
        const hint = 'see whether one of their processes is stopped; dist.timeout_s is the limit';
        reject(new MbridgeError('hang', 'MB_MEMORY_COPY_HANG', found, { hint }));
      }, timeoutMs);
      this.#waiting.add(settle);
    });
  }
}

function send(message: WorkerMessage): void {
  // A launcher that is gone takes this process with it; there is nobody to tell.
  process.send?.(message, undefined, undefined, () => undefined);
}

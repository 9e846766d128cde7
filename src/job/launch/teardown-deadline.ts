import { EXIT } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import type { GivenUp } from './supervisor.js';

/** Gives the run up when a rank is done, and then for long nothing is heard of those that are not. */
export class TeardownDeadline {
  readonly #waited: Set<number>;
  readonly #seconds: number | null;
  readonly #giveUp: (reason: GivenUp) => void;
  #timer: NodeJS.Timeout | undefined;

  /** @param seconds how long to wait; null for ever */
  constructor(nproc: number, seconds: number | null, giveUp: (reason: GivenUp) => void) {
    this.#waited = new Set(Array.from({ length: nproc }, (_, rank) => rank));
    this.#seconds = seconds;
    this.#giveUp = giveUp;
  }

  /** A rank's work is done. */
  done(rank: number): void {
    this.#waited.delete(rank);
    this.#start();
  }

  /** Something was heard of a rank. */
  alive(): void {
    if (this.#timer !== undefined) this.#start();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #start(): void {
    this.close();
    const seconds = this.#seconds;
    if (seconds === null || this.#waited.size === 0) return;
    this.#timer = setTimeout(() => {
      const ranks = formatRanks([...this.#waited]);
      const message = `rank ${ranks} did not end within ${seconds} s after the others were done: stuck in its last step`;
      this.#giveUp({ code: 'MB_RANK_STUCK', exitCode: EXIT.hang, message, again: true });
    }, seconds * 1000);
    this.#timer.unref();
  }
}

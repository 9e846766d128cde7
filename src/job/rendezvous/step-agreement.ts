import { formatRanks } from '../../base/format-ranks.js';
import type { StoreFailure } from './store-protocol.js';

type Reply = (reply: { sum?: number; failure?: StoreFailure }) => void;

interface Paused {
  readonly step: number;
  readonly reply: Reply;
  readonly timer: NodeJS.Timeout;
}

/**
 * How ranks that were asked to stop agree on the last update: no rank may end before one that another has begun, or that
 * one would wait in it for ever. A rank pauses between two updates and is told the last that any rank has begun: a later
 * one means going on to there, its own that all have paused, and the run may end.
 */
export class StepAgreement {
  readonly #begun: number[];
  readonly #paused = new Map<number, Paused>();
  readonly #gone = new Set<number>();

  constructor(worldSize: number) {
    this.#begun = Array.from({ length: worldSize }, () => 0);
  }

  /** Last update that each rank has begun; 0 before the first. */
  get begun(): readonly number[] {
    return this.#begun;
  }

  begin(rank: number, step: number): void {
    this.#begun[rank] = step;
    this.#settle();
  }

  pause(rank: number, step: number, timeoutMs: number, reply: Reply): void {
    const timer = setTimeout(() => {
      const missing = this.#missing();
      this.#paused.delete(rank);
      const what = `rank ${formatRanks(missing)} did not come to the end of update ${step}`;
      reply({ failure: { code: 'MB_STOP_TIMEOUT', message: `${what} within ${(timeoutMs / 1000).toFixed(1)} s` } });
    }, timeoutMs);
    this.#paused.set(rank, { step, reply, timer });
    this.#begun[rank] = step;
    this.#settle();
  }

  /** A rank whose training is over is not waited for. */
  leave(rank: number): void {
    this.#gone.add(rank);
    this.#settle();
  }

  fail(failure: StoreFailure): void {
    for (const rank of [...this.#paused.keys()]) this.#answer(rank, { failure });
  }

  #missing(): number[] {
    return this.#begun.map((_, rank) => rank).filter((rank) => !this.#paused.has(rank) && !this.#gone.has(rank));
  }

  #settle(): void {
    if (this.#paused.size === 0) return;
    const last = this.#begun.reduce((most, step) => Math.max(most, step), 0);
    for (const [rank, { step }] of [...this.#paused]) if (step < last) this.#answer(rank, { sum: last });
    if (this.#missing().length === 0) for (const rank of [...this.#paused.keys()]) this.#answer(rank, { sum: last });
  }

  #answer(rank: number, reply: Parameters<Reply>[0]): void {
    const paused = this.#paused.get(rank);
    if (paused === undefined) return;
    clearTimeout(paused.timer);
    this.#paused.delete(rank);
    paused.reply(reply);
  }
}

const FIRST_NOTICE_MS = 60_000;

/** What is known of a run in which nothing moves. */
export interface Stall {
  readonly idle_s: number;
  /** That each rank has begun, by rank. */
  readonly steps: readonly number[];
  /** Ranks that have ended. */
  readonly done: readonly number[];
}

/**
 * Says, from time to time, when no rank has begun a step for long: the numbers tell which rank is behind. It never ends
 * a run, for a step may be long and a collective has a time limit of its own.
 */
export class StallNotice {
  readonly #steps: number[];
  readonly #done = new Set<number>();
  readonly #say: (text: string, stall: Stall) => void;
  readonly #firstMs: number;
  #lastProgress = performance.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(nproc: number, say: (text: string, stall: Stall) => void, firstMs = FIRST_NOTICE_MS) {
    this.#steps = Array.from({ length: nproc }, () => 0);
    this.#say = say;
    this.#firstMs = firstMs;
    this.#schedule(firstMs);
  }

  progress(rank: number, step: number): void {
    this.#steps[rank] = step;
    this.#lastProgress = performance.now();
  }

  /** The rank's part of the run is done. */
  done(rank: number): void {
    this.#done.add(rank);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #schedule(idleMs: number): void {
    const wait = Math.max(1, idleMs - (performance.now() - this.#lastProgress));
    this.#timer = setTimeout(() => {
      const idle = performance.now() - this.#lastProgress;
      if (idle < idleMs) {
        this.#schedule(this.#firstMs);
        return;
      }
      const where = describeSteps(this.#steps, this.#done);
      const seconds = Math.round(idle / 1000);
      const facts = { idle_s: seconds, steps: [...this.#steps], done: [...this.#done].sort((a, b) => a - b) };
      this.#say(`no rank has begun a step for ${seconds} s; ${where}`, facts);
      this.#schedule(idleMs * 2);
    }, wait);
    this.#timer.unref();
  }
}

/** `all ranks are at step 12`, or each rank's step. */
function describeSteps(steps: readonly number[], done: ReadonlySet<number>): string {
  if (done.size === 0 && new Set(steps).size === 1)
    return steps[0] === 0 ? 'still starting' : `all ranks are at step ${steps[0]}`;
  return steps.map((step, rank) => (done.has(rank) ? `rank ${rank} done` : `rank ${rank} at step ${step}`)).join(', ');
}

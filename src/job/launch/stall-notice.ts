const FIRST_NOTICE_MS = 60_000;

/**
 * Says, from time to time, when no rank has begun a step for long: the numbers tell which rank is behind. It never ends
 * a run, for a step may be long and a collective has a time limit of its own.
 */
export class StallNotice {
  readonly #steps: number[];
  readonly #say: (text: string) => void;
  readonly #firstMs: number;
  #lastProgress = performance.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(nproc: number, say: (text: string) => void, firstMs = FIRST_NOTICE_MS) {
    this.#steps = Array.from({ length: nproc }, () => 0);
    this.#say = say;
    this.#firstMs = firstMs;
    this.#schedule(firstMs);
  }

  progress(rank: number, step: number): void {
    this.#steps[rank] = step;
    this.#lastProgress = performance.now();
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
      this.#say(`no rank has begun a step for ${Math.round(idle / 1000)} s; ${describeSteps(this.#steps)}`);
      this.#schedule(idleMs * 2);
    }, wait);
    this.#timer.unref();
  }
}

/** `all ranks are at step 12`, or each rank's step. */
function describeSteps(steps: readonly number[]): string {
  if (new Set(steps).size === 1) return steps[0] === 0 ? 'still starting' : `all ranks are at step ${steps[0]}`;
  return steps.map((step, rank) => `rank ${rank} at step ${step}`).join(', ');
}

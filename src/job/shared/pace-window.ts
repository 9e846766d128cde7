import type { Pace } from '../../base/pace.js';

interface Sum extends Pace {
  readonly measured: number;
  readonly step: number;
}

const NONE: Sum = { ms: 0, stage: 0, measured: 0, step: 0 };

/** Means of the ranks' paces over so many updates. */
export class PaceWindow {
  readonly #sums: Sum[];
  readonly #updates: number;
  /** The update that the first pace since the last look came with. */
  #since: number | undefined;

  constructor(worldSize: number, updates: number) {
    this.#sums = Array.from({ length: worldSize }, () => NONE);
    this.#updates = updates;
  }

  /**
   * @param step the update that the rank begins; not every one has a pace
   * @returns the mean pace of each rank, once all are through the window, which then begins anew
   */
  note(rank: number, step: number, { ms, stage }: Pace): Pace[] | undefined {
    const before = this.#sums[rank] ?? NONE;
    this.#sums[rank] = { ms: before.ms + ms, stage, measured: before.measured + 1, step };
    const since = (this.#since ??= step);
    if (this.#sums.some((sum) => sum.step < since + this.#updates)) return undefined;
    const means = this.#sums.map((sum) => ({ ms: sum.ms / sum.measured, stage: sum.stage }));
    this.#sums.fill(NONE);
    this.#since = undefined;
    return means;
  }
}

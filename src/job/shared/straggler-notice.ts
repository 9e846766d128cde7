import { median } from '../../base/median.js';
import type { Pace } from '../../base/pace.js';

/** Updates over which a rank's pace is told. */
const WINDOW = 50;
/** So much slower than the median, of those with the same work, is slow, and no less than so many milliseconds. */
const SLOWER = 1.1;
const LEAST_MS = 2;

export interface Straggler {
  readonly rank: number;
  readonly ms: number;
  readonly median_ms: number;
}

/**
 * Tells which ranks are slower at their own work than others with the same: in a synchronous training every update takes
 * as long as the slowest rank. Says it once, and when it is over.
 */
export class StragglerNotice {
  readonly #paces: (Pace & { readonly measured: number; readonly step: number })[];
  readonly #say: (text: string, stragglers: readonly Straggler[]) => void;
  /** The update that the first pace since the last look came with. */
  #since: number | undefined;
  #slow: readonly number[] = [];

  constructor(worldSize: number, say: (text: string, stragglers: readonly Straggler[]) => void) {
    this.#paces = Array.from({ length: worldSize }, () => NONE);
    this.#say = say;
  }

  /** @param step the update that the rank begins; not every one has a pace */
  note(rank: number, step: number, { ms, stage }: Pace): void {
    const before = this.#paces[rank] ?? NONE;
    this.#paces[rank] = { ms: before.ms + ms, stage, measured: before.measured + 1, step };
    const since = (this.#since ??= step);
    if (this.#paces.some((pace) => pace.step < since + WINDOW)) return;
    const stragglers = findStragglers(this.#paces.map((pace) => ({ ms: pace.ms / pace.measured, stage: pace.stage })));
    this.#paces.fill(NONE);
    this.#since = undefined;
    const slow = stragglers.map((straggler) => straggler.rank);
    if (slow.join() === this.#slow.join()) return;
    this.#slow = slow;
    this.#say(describe(stragglers), stragglers);
  }
}

const NONE = { ms: 0, stage: 0, measured: 0, step: 0 };

/** The ranks, by their place in `paces`, that are slow. */
export function findStragglers(paces: readonly Pace[]): Straggler[] {
  return paces.flatMap(({ ms, stage }, rank) => {
    const others = paces.filter((pace, other) => pace.stage === stage && other !== rank);
    if (others.length === 0) return [];
    const usual = median(others.map((pace) => pace.ms));
    const slow = ms > usual * SLOWER && ms - usual >= LEAST_MS;
    return slow ? [{ rank, ms: round(ms), median_ms: round(usual) }] : [];
  });
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}

function describe(stragglers: readonly Straggler[]): string {
  if (stragglers.length === 0) return `no rank is slower than the others any more, over ${WINDOW} updates`;
  const each = stragglers.map(({ rank, ms, median_ms: usual }) => {
    const more = Math.round((ms / usual - 1) * 100);
    return `rank ${rank} is ${more} % slower at its own work than the median of the others (${ms.toFixed(1)} ms an update, ${usual.toFixed(1)} ms)`;
  });
  return `over ${WINDOW} updates ${each.join('; ')}: all ranks wait for the slowest; look at its machine, GPU clock and data`;
}

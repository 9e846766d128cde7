import { median } from '../../base/median.js';
import type { Pace } from '../../base/pace.js';
import { PaceWindow } from './pace-window.js';

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
  readonly #window: PaceWindow;
  readonly #say: (text: string, stragglers: readonly Straggler[]) => void;
  #slow: readonly number[] = [];

  constructor(worldSize: number, say: (text: string, stragglers: readonly Straggler[]) => void) {
    this.#window = new PaceWindow(worldSize, WINDOW);
    this.#say = say;
  }

  /** @param step the update that the rank begins; not every one has a pace */
  note(rank: number, step: number, pace: Pace): void {
    const paces = this.#window.note(rank, step, pace);
    if (paces === undefined) return;
    const stragglers = findStragglers(paces);
    const slow = stragglers.map((straggler) => straggler.rank);
    if (slow.join() === this.#slow.join()) return;
    this.#slow = slow;
    this.#say(describe(stragglers), stragglers);
  }
}

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

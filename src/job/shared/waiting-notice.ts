import { formatRanks } from '../../base/format-ranks.js';

const NOTICE_MS = 10_000;

export interface WaitedFor {
  worldSize: number;
  missing: () => readonly number[];
  /** Where a rank should run, if that is known. */
  hostOf?: (rank: number) => string | undefined;
  /** What is waited for; ranks by default. */
  member?: 'rank' | 'node';
  /** What the user may have forgotten. */
  hint?: string | undefined;
}

/** Who is waited for, and for how long. */
export interface Waiting {
  readonly member: 'rank' | 'node';
  readonly missing: readonly number[];
  readonly of: number;
  readonly wait_s: number;
}

/** Says every ten seconds which ranks have not come yet, until all have. */
export class WaitingNotice {
  readonly #timer: NodeJS.Timeout;

  constructor(who: WaitedFor, say: (text: string, waiting: Waiting) => void, everyMs = NOTICE_MS) {
    const started = performance.now();
    this.#timer = setInterval(() => {
      const missing = who.missing();
      if (missing.length === 0) {
        this.close();
        return;
      }
      const seconds = Math.round((performance.now() - started) / 1000);
      const facts = { member: who.member ?? 'rank', missing, of: who.worldSize, wait_s: seconds };
      say(`waiting for ${describeMissing(missing, who)} (${seconds} s)${hintOf(who)}`, facts);
    }, everyMs);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** `rank 1, 3 of 4 on node-b`; of several hosts a few are listed. */
function describeMissing(missing: readonly number[], { hostOf, worldSize, member = 'rank' }: WaitedFor): string {
  const hosts = [...new Set(missing.map((rank) => hostOf?.(rank)).filter((host) => host !== undefined))];
  const named = hosts.length > 4 ? `${hosts.slice(0, 4).join(', ')}, ...` : hosts.join(', ');
  return `${member} ${formatRanks(missing)} of ${worldSize}${named === '' ? '' : ` on ${named}`}`;
}

function hintOf({ hint }: WaitedFor): string {
  return hint === undefined ? '' : `; ${hint}`;
}

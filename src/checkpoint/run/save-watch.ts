import { hostname } from 'node:os';
import { MbridgeError } from '../../base/errors.js';
import type { Store } from '../../job/rendezvous/store.js';

/** How long a save may take in all, and how often one that is waited for is spoken of. */
const SAVE_MS = 6 * 3600 * 1000;
const NOTICE_MS = 10_000;
const LONGEST_BEAT_MS = 5_000;

export interface SaveWatchOptions {
  readonly store: Store;
  readonly rank: number;
  readonly size: number;
  /** Of this run alone, for the store's keys. */
  readonly runToken: string;
  /** Silence after which a rank counts as hung. */
  readonly timeoutMs: number;
  readonly warn: (text: string) => void;
  /** Whether anything waits for the save: only then is a slow one spoken of. */
  readonly awaited: () => boolean;
}

/**
 * How the ranks wait for each other in a save. A large shard may take long on a slow disk, so not the time of a save is
 * limited but a rank's silence: while it takes part, each says every few seconds that it lives.
 */
export class SaveWatch {
  readonly #o: SaveWatchOptions;
  readonly #beatMs: number;
  #contributed = 0;

  constructor(options: SaveWatchOptions) {
    this.#o = options;
    this.#beatMs = Math.min(LONGEST_BEAT_MS, options.timeoutMs / 3);
  }

  /** Says where this rank runs, so that others can name it; once, before the first save. */
  async announce(): Promise<void> {
    await this.#o.store.set(this.#key('host', this.#o.rank), Buffer.from(hostname()));
  }

  /** Runs this rank's part of a save. */
  async during<T>(part: () => Promise<T>): Promise<T> {
    const { store, rank } = this.#o;
    const timer = setInterval(() => {
      store.add(this.#key('beat', rank), 1).catch(() => undefined); // who waits sees the loss
    }, this.#beatMs);
    try {
      return await part();
    } finally {
      clearInterval(timer);
    }
  }

  /** Says that this rank's files of the save are written; true for the last one to say so. */
  async contribute(save: string): Promise<boolean> {
    const { store, rank, size } = this.#o;
    this.#contributed++;
    await store.add(this.#key('written', rank), 1);
    return (await store.add(`checkpoint/${save}/written`, 1)) === size;
  }

  /**
   * Waits until `key` is set.
   * @param who 'writers': the ranks that have not contributed are waited for; 'first': the one that commits
   * @throws MbridgeError exit 6 that names the rank which has been silent
   */
  async wait(key: string, what: string, who: 'writers' | 'first'): Promise<void> {
    const { store, timeoutMs, warn, awaited } = this.#o;
    const started = performance.now();
    const heard = new Map<number, { beat: number; time: number }>();
    let noticed = started;
    while (!(await this.#isSet(key))) {
      const late = who === 'first' ? [0] : await this.#writing();
      const now = performance.now();
      for (const rank of late) {
        const beat = await store.add(this.#key('beat', rank), 0);
        if (heard.get(rank)?.beat !== beat) heard.set(rank, { beat, time: now });
      }
      const silentMs = (rank: number): number => now - (heard.get(rank)?.time ?? now);
      const silent = late.filter((rank) => silentMs(rank) > timeoutMs || now - started > SAVE_MS);
      if (silent.length > 0) {
        const seconds = (Math.max(...silent.map(silentMs)) / 1000).toFixed(0);
        const text = `${what}: ${await this.#names(silent)} did not write its part and has been silent for ${seconds} s`;
        throw new MbridgeError('hang', 'MB_CHECKPOINT_HANG', text, {
          hint: 'see whether the process is stopped and whether its disk answers; dist.timeout_s is the limit',
          details: { ranks: silent },
        });
      }
      if (who === 'first' || late.length === 0 || !awaited() || now - noticed < NOTICE_MS) continue;
      noticed = now;
      warn(`${what}: waiting for ${await this.#names(late)}, ${((now - started) / 1000).toFixed(0)} s so far`);
    }
  }

  async #isSet(key: string): Promise<boolean> {
    try {
      await this.#o.store.get(key, this.#beatMs);
      return true;
    } catch (error) {
      if (error instanceof MbridgeError && error.code === 'MB_RENDEZVOUS_TIMEOUT') return false;
      throw error;
    }
  }

  /** Ranks that have not written as often as this one. */
  async #writing(): Promise<number[]> {
    const ranks = Array.from({ length: this.#o.size }, (_, rank) => rank);
    const counts = await Promise.all(ranks.map((rank) => this.#o.store.add(this.#key('written', rank), 0)));
    return ranks.filter((rank) => (counts[rank] as number) < this.#contributed);
  }

  async #names(ranks: readonly number[]): Promise<string> {
    const names = ranks.slice(0, 8).map(async (rank) => {
      const host = await this.#o.store.get(this.#key('host', rank), 1000).catch(() => undefined);
      return host === undefined ? `rank ${rank}` : `rank ${rank} (${Buffer.from(host).toString()})`;
    });
    return (await Promise.all(names)).join(', ') + (ranks.length > 8 ? ` and ${ranks.length - 8} more` : '');
  }

  #key(what: string, rank: number): string {
    return `checkpoint/${this.#o.runToken}/${what}/${rank}`;
  }
}

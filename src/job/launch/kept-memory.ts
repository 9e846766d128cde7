import { closeSync, openSync } from 'node:fs';
import { errnoOf } from '../../base/system-error.js';
import type { KeptCopies } from '../shared/messages.js';

/**
 * The copies of the ranks' state that a launcher keeps while ranks come and go. It holds a descriptor of each rank's
 * memory, which so lives as long as this process, and nowhere else. A rank overwrites its older copy only once it is
 * told that all have the newer one, so there always is an update of which all have a whole copy.
 */
export class KeptMemory {
  readonly #descriptors: (number | null)[];
  /** The last update that each rank has a whole copy of. */
  readonly #copied: (number | null)[];

  constructor(ranks: number) {
    this.#descriptors = Array.from({ length: ranks }, () => null);
    this.#copied = Array.from({ length: ranks }, () => null);
  }

  /** Takes a rank's memory: a descriptor of its process. */
  take(rank: number, pid: number, descriptor: number, warn: (text: string) => void): void {
    this.#close(rank);
    this.#copied[rank] = null;
    try {
      this.#descriptors[rank] = openSync(`/proc/${pid}/fd/${descriptor}`, 'r+');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return; // the process has just ended
      const reason = error instanceof Error ? error.message : String(error);
      warn(`the memory of rank ${rank} cannot be kept, so that a restart goes on from disk: ${reason}`);
    }
  }

  /** Notes that a rank's copy is whole. @returns the update once it is whole on all ranks; null before */
  copied(rank: number, step: number): number | null {
    this.#copied[rank] = step;
    return this.#copied.every((copied) => copied !== null && copied >= step) ? step : null;
  }

  /** The last update that every rank has a whole copy of, in memory that is here; null where there is none. */
  get whole(): number | null {
    if (this.#descriptors.includes(null) || this.#copied.includes(null)) return null;
    return (this.#copied as number[]).reduce((least, step) => Math.min(least, step), Infinity);
  }

  /** Begins an attempt that goes on from the copies of `step`, or from none. @returns what its ranks are told */
  begin(step: number | null): KeptCopies {
    this.#copied.fill(step);
    return { step, paths: this.#descriptors.map((fd) => (fd === null ? null : `/proc/${process.pid}/fd/${fd}`)) };
  }

  close(): void {
    for (const rank of this.#descriptors.keys()) this.#close(rank);
  }

  #close(rank: number): void {
    const descriptor = this.#descriptors[rank] ?? null;
    if (descriptor !== null) closeSync(descriptor);
    this.#descriptors[rank] = null;
  }
}

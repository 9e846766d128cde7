import type { Dataset } from './dataset.js';
import { Permutation } from './permutation.js';

/** Which sample of which pass over the data. */
export interface SamplePlace {
  /** Passes finished before this one, from 0. */
  readonly epoch: number;
  readonly index: number;
}

/** In its own order, where a dataset has one; else shuffled by `seed`, or in file order without one. */
export function orderOf(dataset: Pick<Dataset, 'length' | 'epoch'>, seed: number | undefined): SampleOrder {
  return dataset.epoch === undefined ? new SampleOrder(dataset.length, seed) : new SampleOrder(Infinity, undefined);
}

/**
 * The order of samples over a whole run, as a function of how many were consumed before: file order, or a new
 * permutation each epoch by (seed, epoch). Nothing else is state, so any place can be resumed.
 */
export class SampleOrder {
  readonly #length: number;
  readonly #seed: number | undefined;
  #epoch = -1;
  #permutation: Permutation | undefined;

  /** `seed` undefined: file order. `length` Infinity: one endless epoch in order. */
  constructor(length: number, seed: number | undefined) {
    this.#length = length;
    this.#seed = length === Infinity ? undefined : seed;
  }

  /** Place of the sample that is read after `consumed` others (all replicas together). */
  at(consumed: number): SamplePlace {
    const epoch = this.epoch(consumed);
    const place = epoch === 0 ? consumed : consumed - epoch * this.#length;
    if (this.#seed === undefined) return { epoch, index: place };
    if (this.#permutation === undefined || this.#epoch !== epoch) {
      this.#permutation = new Permutation(this.#length, this.#seed, epoch);
      this.#epoch = epoch;
    }
    return { epoch, index: this.#permutation.at(place) };
  }

  epoch(consumed: number): number {
    return Math.floor(consumed / this.#length);
  }
}

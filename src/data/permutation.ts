import { high32, mix32 } from './hash.js';

const ROUNDS = 8;

/**
 * A pseudo-random permutation of 0..length-1 for one (seed, epoch), in constant memory: a Feistel network over the next
 * even power of two, walked until it lands inside the range (each step of the walk is itself a bijection).
 */
export class Permutation {
  readonly #length: number;
  readonly #half: number;
  readonly #keys: Int32Array;

  constructor(length: number, seed: number, epoch: number) {
    if (!Number.isSafeInteger(length) || length < 1 || length > 2 ** 50) throw new RangeError(`bad length ${length}`);
    this.#length = length;
    // At least 3 bits a half: with fewer, the network has too few permutations to choose from.
    this.#half = Math.max(3, Math.ceil(Math.ceil(Math.log2(length)) / 2));
    const key = mix32(mix32(high32(seed), seed | 0), epoch | 0);
    this.#keys = Int32Array.from({ length: ROUNDS }, (_, round) => mix32(key, round + 1));
  }

  /** Where `index` of 0..length-1 goes. */
  at(index: number): number {
    const size = 2 ** this.#half;
    const mask = size - 1;
    let x = index;
    do {
      let left = Math.floor(x / size);
      let right = x % size;
      for (let round = 0; round < ROUNDS; round++) {
        const mixed = left ^ ((mix32(this.#keys[round] as number, right) >>> 3) & mask);
        left = right;
        right = mixed;
      }
      x = left * size + right;
    } while (x >= this.#length);
    return x;
  }
}

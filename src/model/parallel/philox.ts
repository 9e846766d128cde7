/** State of a stream, as JSON: the seed and how many 32-bit words were drawn. */
export interface PhiloxState {
  readonly seed: number;
  readonly drawn: number;
}

/**
 * A stream of random numbers that is a function of (seed, position): Philox4x32-10 (Salmon et al., SC 2011) with the
 * seed as key and the block number as counter. Saving and restoring is copying two numbers.
 */
export class PhiloxStream {
  #seed: number;
  #drawn = 0;
  #block: readonly number[] | undefined;

  /** @param seed integer in [0, 2^53) */
  constructor(seed: number) {
    this.#seed = checkedInteger(seed, 'seed');
  }

  get seed(): number {
    return this.#seed;
  }

  get state(): PhiloxState {
    return { seed: this.#seed, drawn: this.#drawn };
  }

  set state({ seed, drawn }: PhiloxState) {
    this.#seed = checkedInteger(seed, 'seed');
    this.#drawn = checkedInteger(drawn, 'position');
    this.#block = undefined;
  }

  /** The next word, an integer in [0, 2^32). */
  uint32(): number {
    const word = this.#drawn % 4;
    if (word === 0 || this.#block === undefined) {
      const block = Math.floor(this.#drawn / 4);
      this.#block = philox4x32([low(block), high(block), 0, 0], [low(this.#seed), high(this.#seed)]);
    }
    this.#drawn++;
    return this.#block[word]!;
  }

  /** The next number in [0, 1), from one word. */
  uniform(): number {
    return this.uint32() / 2 ** 32;
  }

  /** The next standard normal deviate, from two words (Box-Muller, the cosine half). */
  normal(): number {
    const u1 = (this.uint32() + 1) / 2 ** 32;
    const u2 = this.uniform();
    return Math.sqrt(-2 * Math.log(u1)) * Math.cos(2 * Math.PI * u2);
  }
}

/** Ten rounds of Philox over one block of four words. */
export function philox4x32(counter: readonly number[], key: readonly number[]): number[] {
  let [c0, c1, c2, c3] = counter as [number, number, number, number];
  let [k0, k1] = key as [number, number];
  for (let round = 0; round < 10; round++) {
    const [hi0, lo0] = multiply(0xd2511f53, c0);
    const [hi1, lo1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(hi1 ^ c1 ^ k0) >>> 0, lo1, (hi0 ^ c3 ^ k1) >>> 0, lo0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The 64-bit product of two words as high and low word: 16-bit halves keep every step exact in a double. */
function multiply(a: number, b: number): [number, number] {
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const lowPart = a * bLow;
  const highPart = a * bHigh + Math.floor(lowPart / 0x10000);
  return [Math.floor(highPart / 0x10000), Math.imul(a, b) >>> 0];
}

function low(value: number): number {
  return value % 2 ** 32;
}

function high(value: number): number {
  return Math.floor(value / 2 ** 32);
}

function checkedInteger(value: number, what: string): number {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`the ${what} of a random stream must be an integer in [0, 2^53), got ${value}`);
}

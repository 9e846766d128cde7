/** Takes from the fields of a micro-batch what belongs to the tokens that a context-parallel rank holds. */
export class BatchCut {
  /** Of a whole micro-batch. */
  readonly tokens: number;
  readonly #held: Int32Array;
  /** For each token of the micro-batch its number here, or -1. */
  readonly #here: Int32Array;

  /** @param held for each token here, its number in the micro-batch */
  constructor(held: Int32Array, tokens: number) {
    this.tokens = tokens;
    this.#held = held;
    this.#here = new Int32Array(tokens).fill(-1);
    held.forEach((token, i) => (this.#here[token] = i));
  }

  /** The number in the micro-batch of the `i`-th token here. */
  tokenAt(i: number): number {
    return this.#held[i] as number;
  }

  /** Fills `to` from the field `name` of a whole micro-batch. */
  take(name: string, values: Int32Array | Float32Array, to: Int32Array | Float32Array): void {
    if (name === 'order') this.#takeOrder(values, to);
    else for (let i = 0; i < to.length; i++) to[i] = values[this.#held[i]!]!;
  }

  /** The one field whose values are tokens' numbers: without those that are elsewhere it is sorted as before. */
  #takeOrder(order: Int32Array | Float32Array, to: Int32Array | Float32Array): void {
    let at = 0;
    for (const token of order) {
      const here = this.#here[token]!;
      if (here >= 0) to[at++] = here;
    }
  }
}

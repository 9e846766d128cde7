import { high32, mix32 } from '../hash.js';
import type { TokenFile } from './token-file.js';

/** Documents between two that the place is kept of. */
const STRIDE = 64;
/** So that documents and samples of one seed are not shuffled by the same numbers. */
const DOCUMENTS = 0x3c6ef372;

/**
 * The documents from..to-1 of a file put end to end: in its order, or in a new one each epoch by (seed, epoch). Shuffled,
 * it holds 4 bytes a document for the epoch that was read last.
 */
export class DocumentStream {
  readonly tokens: number;
  readonly #file: TokenFile;
  readonly #from: number;
  readonly #count: number;
  readonly #seed: number | undefined;
  #epoch = -1;
  #order = new Uint32Array(0);
  /** Tokens before every STRIDE-th document of the order. */
  #before = new Float64Array(0);

  constructor(file: TokenFile, range: { from: number; to: number }, seed: number | undefined) {
    this.#file = file;
    this.#from = range.from;
    this.#count = range.to - range.from;
    this.#seed = seed;
    this.tokens = (file.starts[range.to] as number) - (file.starts[range.from] as number);
  }

  /**
   * Copies tokens start..start+dst.length-1 of the epoch's stream to `dst`.
   * @param begins of as many entries, 0 before: receives 1 where a document begins
   */
  read(epoch: number, start: number, dst: Int32Array, begins?: Uint8Array): void {
    if (this.#seed === undefined) {
      const first = (this.#file.starts[this.#from] as number) + start;
      this.#file.read(first, dst);
      if (begins !== undefined) this.#file.begins(first, begins);
      return;
    }
    if (epoch !== this.#epoch) this.#shuffle(this.#seed, epoch);
    const stride = lastNotAbove(this.#before, start);
    let at = stride * STRIDE;
    let skip = start - (this.#before[stride] as number);
    for (let done = 0; done < dst.length; at++) {
      const document = this.#order[at] as number;
      const length = this.#file.lengthOf(document);
      const count = Math.min(length - skip, dst.length - done);
      if (count > 0) {
        if (begins !== undefined && skip === 0) begins[done] = 1;
        this.#file.read((this.#file.starts[document] as number) + skip, dst.subarray(done, done + count));
        done += count;
      }
      skip = Math.max(0, skip - length);
    }
  }

  #shuffle(seed: number, epoch: number): void {
    const order = (this.#order = this.#order.length > 0 ? this.#order : new Uint32Array(this.#count));
    for (let i = 0; i < order.length; i++) order[i] = this.#from + i;
    const key = mix32(mix32(high32(seed) ^ DOCUMENTS, seed | 0), epoch | 0);
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(((mix32(key, i) >>> 0) / 2 ** 32) * (i + 1));
      const document = order[i] as number;
      order[i] = order[j] as number;
      order[j] = document;
    }
    this.#before = new Float64Array(Math.ceil(order.length / STRIDE));
    let tokens = 0;
    for (let i = 0; i < order.length; i++) {
      if (i % STRIDE === 0) this.#before[i / STRIDE] = tokens;
      tokens += this.#file.lengthOf(order[i] as number);
    }
    this.#epoch = epoch;
  }
}

/** The last place of an ascending list whose value is at most `value`. */
function lastNotAbove(list: Float64Array, value: number): number {
  let [low, high] = [0, list.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((list[middle] as number) <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

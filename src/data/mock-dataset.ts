import type { DataFingerprint, Dataset, Sample } from './dataset.js';
import { high32, mix32 } from './hash.js';

/**
 * Endless uniform random tokens, a pure function of (seed, index): for benchmarks and smoke tests. Costs about a
 * nanosecond a token, so that it never hides or causes a slow step.
 */
export class MockDataset implements Dataset {
  readonly length = Infinity;
  readonly #seed: number;
  readonly #vocabSize: number;
  readonly #sample: { inputIds: Int32Array };

  constructor(options: { seed: number; vocabSize: number; seqLength: number }) {
    this.#seed = options.seed;
    this.#vocabSize = options.vocabSize;
    this.#sample = { inputIds: new Int32Array(options.seqLength + 1) };
  }

  sample(index: number): Sample {
    const ids = this.#sample.inputIds;
    const scale = this.#vocabSize / 2 ** 32;
    // Both halves of the index and of the seed enter the key: indexes and seeds may pass 2^32.
    const key = mix32(mix32(high32(this.#seed) ^ 0x5bd1e995, this.#seed | 0) ^ high32(index), index | 0);
    for (let j = 0; j < ids.length; j++) ids[j] = Math.floor((mix32(key, j) >>> 0) * scale);
    return this.#sample;
  }

  describe(): string {
    return `mock: random tokens below ${this.#vocabSize}, seed ${this.#seed}`;
  }

  fingerprint(): DataFingerprint {
    return { settings: { seed: this.#seed }, files: [] };
  }

  close(): void {}
}

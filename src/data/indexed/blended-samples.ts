import type { DataFingerprint, Dataset, Sample, SourceProgress } from '../dataset.js';
import { BlendOrder } from './blend-order.js';
import type { IndexedSamples } from './indexed-samples.js';

/** Several sources in one endless stream, each by its weight and through its own epochs. */
export class BlendedSamples implements Dataset {
  readonly length = Infinity;
  /** The sources' own, where one tokenizer made them all. */
  readonly tokenBytes: ArrayLike<number> | undefined;
  readonly #sources: readonly IndexedSamples[];
  /** Of sum 1. */
  readonly #shares: readonly number[];
  readonly #order: BlendOrder;

  constructor(sources: readonly IndexedSamples[], weights: readonly number[]) {
    const sum = weights.reduce((total, weight) => total + weight, 0);
    this.#sources = sources;
    this.tokenBytes = commonOf(sources.map(({ tokenBytes }) => tokenBytes));
    this.#shares = weights.map((weight) => weight / sum);
    this.#order = new BlendOrder(this.#shares);
  }

  sample(index: number): Sample {
    const place = this.#order.at(index);
    return (this.#sources[place.source] as IndexedSamples).sample(place.index);
  }

  /** Epochs that every source has behind it. */
  epoch(index: number): number {
    return Math.floor(Math.min(...this.progress(index).map(({ epochs }) => epochs)));
  }

  progress(consumed: number): SourceProgress[] {
    const counts = this.#order.counts(consumed);
    return this.#sources.flatMap((source, i) =>
      source.progress(counts[i] as number).map((own) => ({ ...own, share: this.#shares[i] as number })),
    );
  }

  describe(): string {
    const parts = this.#sources.map(
      (source, i) => `${((this.#shares[i] as number) * 100).toFixed(2)} % of ${source.describe()}`,
    );
    return `blend: ${parts.join('; ')}`;
  }

  fingerprint(): DataFingerprint {
    const own = this.#sources.map((source) => source.fingerprint());
    const documents = own.map(({ settings }) => settings['documents']).join(' ');
    const shares = this.#shares.map((share) => share.toPrecision(9)).join(' ');
    return {
      settings: { ...own[0]?.settings, documents, blend: shares },
      files: own.flatMap(({ files }) => files),
    };
  }

  close(): void {
    for (const source of this.#sources) source.close();
  }
}

function commonOf(all: readonly (ArrayLike<number> | undefined)[]): ArrayLike<number> | undefined {
  const [first, ...others] = all;
  if (first === undefined) return undefined;
  const same = (other: ArrayLike<number> | undefined): boolean =>
    other?.length === first.length && Array.from(other).every((bytes, id) => bytes === first[id]);
  return others.every(same) ? first : undefined;
}

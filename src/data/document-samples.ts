import type { DataFingerprint, Dataset, Sample } from './dataset.js';

/** What is made of the places where documents begin. */
export interface DocumentOptions {
  /** Attention and positions stay inside a document. */
  readonly attention: boolean;
  /** The first token of a document is not predicted from the one before. */
  readonly maskStarts: boolean;
}

/** Samples of a dataset that says where documents begin, as section `dataset` wants them. */
export class DocumentSamples implements Dataset {
  readonly length: number;
  readonly tokenBytes: Dataset['tokenBytes'];
  readonly epoch?: NonNullable<Dataset['epoch']>;
  readonly progress?: NonNullable<Dataset['progress']>;
  readonly #dataset: Dataset;
  readonly #o: DocumentOptions;

  constructor(dataset: Dataset, options: DocumentOptions) {
    this.length = dataset.length;
    this.tokenBytes = dataset.tokenBytes;
    this.#dataset = dataset;
    this.#o = options;
    const { epoch, progress } = dataset;
    if (epoch !== undefined) this.epoch = epoch.bind(dataset);
    if (progress !== undefined) this.progress = progress.bind(dataset);
  }

  sample(index: number): Sample {
    const { inputIds, lossMask: mask, begins } = this.#dataset.sample(index);
    if (begins === undefined) return mask === undefined ? { inputIds } : { inputIds, lossMask: mask };
    const { attention, maskStarts } = this.#o;
    const lossMask = maskStarts ? begins.map((first, j) => (first === 0 && j > 0 ? (mask?.[j] ?? 1) : 0)) : mask;
    return { inputIds, ...(lossMask === undefined ? {} : { lossMask }), ...(attention ? { begins } : {}) };
  }

  describe(): string {
    const { attention, maskStarts } = this.#o;
    const apart = attention ? ', documents apart' : '';
    return `${this.#dataset.describe()}${apart}${maskStarts ? ', their first tokens not predicted' : ''}`;
  }

  fingerprint(): DataFingerprint | null {
    const own = this.#dataset.fingerprint?.() ?? null;
    if (own === null) return null;
    const { attention, maskStarts } = this.#o;
    const settings = { document_attention: attention, mask_document_starts: maskStarts };
    return { ...own, settings: { ...own.settings, ...settings } };
  }

  close(): void {
    this.#dataset.close();
  }
}

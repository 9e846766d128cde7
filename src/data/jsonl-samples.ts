import { badData } from './data-error.js';
import type { DataFingerprint, Dataset, Sample } from './dataset.js';
import type { JsonlFile } from './jsonl-file.js';

/** Read when a file is opened: a second's work. */
const CHECKED_BYTES = 64 << 20;

/**
 * Samples that are tokenised already: `{"input_ids": [seq + 1 tokens], "loss_mask": [seq + 1 of 0 or 1], "document_starts":
 * [places of first tokens]}` a line, the last two where it has them.
 */
export class JsonlSamples implements Dataset {
  readonly length: number;
  readonly #file: JsonlFile;
  readonly #vocabSize: number;
  readonly #inputIds: Int32Array;
  readonly #lossMask: Uint8Array;
  readonly #begins: Uint8Array | undefined;

  /** @param options.documents whether samples say where documents begin */
  constructor(file: JsonlFile, options: { vocabSize: number; seqLength: number; documents?: boolean }) {
    this.#file = file;
    this.length = file.length;
    this.#vocabSize = options.vocabSize;
    this.#inputIds = new Int32Array(options.seqLength + 1);
    this.#lossMask = new Uint8Array(options.seqLength + 1);
    this.#begins = options.documents === true ? new Uint8Array(options.seqLength + 1) : undefined;
  }

  /**
   * Reads every sample of a file of up to `most` bytes, of a larger one that much in even steps: bad data is found
   * before the first update, not when an hour of updates would be lost with it.
   */
  check(most = CHECKED_BYTES): void {
    const step = Math.ceil(this.#file.bytes / most);
    for (let index = 0; index < this.length; index += step) this.sample(index);
    this.sample(this.length - 1);
  }

  sample(index: number): Sample {
    const { input_ids: ids, loss_mask: mask, document_starts: starts } = this.#file.object(index);
    this.#readIds(index, ids);
    if (mask !== undefined) this.#readMask(index, mask);
    if (this.#begins !== undefined) this.#readStarts(index, starts ?? [0], this.#begins);
    return {
      inputIds: this.#inputIds,
      ...(mask === undefined ? {} : { lossMask: this.#lossMask }),
      ...(this.#begins === undefined ? {} : { begins: this.#begins }),
    };
  }

  #readStarts(index: number, starts: unknown, dst: Uint8Array): void {
    const hint = `"document_starts" is a list of places in "input_ids" from 0 to ${dst.length - 1}, such as [0, 17]`;
    if (!Array.isArray(starts)) throw this.#bad('MB_DATA_SAMPLE', index, '"document_starts" is not a list', hint);
    dst.fill(0);
    for (const place of starts as unknown[]) {
      if (!Number.isInteger(place) || (place as number) < 0 || (place as number) >= dst.length) {
        throw this.#bad('MB_DATA_SAMPLE', index, `"document_starts" has ${JSON.stringify(place)}`, hint);
      }
      dst[place as number] = 1;
    }
  }

  #readIds(index: number, ids: unknown): void {
    const dst = this.#inputIds;
    if (!Array.isArray(ids)) {
      const found = ids === undefined ? 'no "input_ids"' : '"input_ids" is not a list';
      throw this.#bad('MB_DATA_SAMPLE', index, found, 'every line of this file must hold {"input_ids": [...]}');
    }
    if (ids.length !== dst.length) {
      throw this.#bad(
        'MB_DATA_SAMPLE_LENGTH',
        index,
        `"input_ids" has ${ids.length} tokens, expected ${dst.length} (seq_length + 1)`,
        'set model.seq_length to the length of the samples minus 1, or cut the samples again',
        { found: ids.length, expected: dst.length },
      );
    }
    for (let j = 0; j < dst.length; j++) {
      const token: unknown = ids[j];
      if (!Number.isInteger(token) || (token as number) < 0 || (token as number) >= this.#vocabSize) {
        throw this.#bad(
          'MB_DATA_TOKEN',
          index,
          `token ${JSON.stringify(token)} at position ${j} is not in the vocabulary of ${this.#vocabSize} (0..${this.#vocabSize - 1})`,
          'tokenise the data with the tokenizer of this model',
          { token, position: j, vocabSize: this.#vocabSize },
        );
      }
      dst[j] = token as number;
    }
  }

  #readMask(index: number, mask: unknown): void {
    const dst = this.#lossMask;
    const hint = '"loss_mask" is as long as "input_ids": entry j is 1 when predicting token j counts, else 0';
    if (!Array.isArray(mask) || mask.length !== dst.length) {
      const found = Array.isArray(mask) ? `"loss_mask" has ${mask.length} entries` : '"loss_mask" is not a list';
      throw this.#bad('MB_DATA_MASK', index, `${found}, expected ${dst.length}`, hint);
    }
    for (let j = 0; j < dst.length; j++) {
      const value: unknown = mask[j];
      if (value !== 0 && value !== 1 && value !== true && value !== false) {
        throw this.#bad('MB_DATA_MASK', index, `"loss_mask" has ${JSON.stringify(value)} at position ${j}`, hint);
      }
      dst[j] = Number(value);
    }
  }

  #bad(code: string, index: number, found: string, hint: string, details?: Record<string, unknown>): Error {
    return badData(code, this.#file.where(index), found, hint, details);
  }

  describe(): string {
    return `${this.#file.path}: ${this.length} samples of ${this.#inputIds.length - 1} tokens`;
  }

  fingerprint(): DataFingerprint {
    return { settings: {}, files: [this.#file.fingerprint()] };
  }

  close(): void {
    this.#file.close();
  }
}

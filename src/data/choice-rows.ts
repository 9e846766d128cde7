import type { Dataset, Sample } from './dataset.js';
import { JsonlFile } from './jsonl-file.js';

/** One choice of one question, tokenised: a line of the file that {@link ChoiceRows} reads. */
export interface ChoiceRow {
  /** Of context and choice. */
  readonly ids: readonly number[];
  /** How many of them are context: they do not count. */
  readonly context: number;
  /** Bytes of the choice's text. */
  readonly bytes: number;
  /** Which question of its file, from 1. */
  readonly question: number;
  readonly isAnswer: boolean;
}

/** Choices as samples: each is padded to the length of a sample, and its choice's tokens alone count. */
export class ChoiceRows implements Dataset {
  readonly length: number;
  readonly #file: JsonlFile;
  readonly #seqLength: number;

  /** @param path a file of {@link ChoiceRow} lines, none longer than a sample */
  constructor(path: string, seqLength: number) {
    this.#file = JsonlFile.open(path);
    this.length = this.#file.length;
    this.#seqLength = seqLength;
  }

  row(index: number): ChoiceRow {
    return this.#file.object(index) as unknown as ChoiceRow;
  }

  sample(index: number): Sample {
    const { ids, context } = this.row(index);
    const inputIds = new Int32Array(this.#seqLength + 1);
    inputIds.set(ids);
    return { inputIds, lossMask: new Uint8Array(inputIds.length).fill(1, context, ids.length) };
  }

  describe(): string {
    return `${this.length} choices`;
  }

  close(): void {
    this.#file.close();
  }
}

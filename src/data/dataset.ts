/** One training sample: seq + 1 tokens, of which the first seq are inputs and the last seq are targets. */
export interface Sample {
  /** seq + 1 token ids, each in [0, vocabulary). Valid until the next `sample` call of the same dataset. */
  readonly inputIds: Int32Array;
  /** seq + 1 entries; entry j is 1 when predicting token j counts (entry 0 never does). Absent: all count. */
  readonly lossMask?: Uint8Array;
  /**
   * seq + 1 entries; entry j is 1 where token j is the first of a document, 0 elsewhere. Absent: the sample is one document,
   * or the dataset was not asked for them.
   */
  readonly begins?: Uint8Array;
}

/** A sample of which only the first `here` tokens are there: the others are 0, and predicting them does not count. */
export function padded(sample: Pick<Sample, 'inputIds' | 'begins'>, here: number): Sample {
  const { inputIds } = sample;
  inputIds.fill(0, here);
  return { ...sample, lossMask: new Uint8Array(inputIds.length).fill(1, 1, here) };
}

/** A file by its content: the time that it was changed and its folder do not count. */
export interface FileFingerprint {
  /** As it was configured; for messages. */
  readonly path: string;
  readonly bytes: number;
  /** Hexadecimal SHA-256 of the content, of sampled parts where the file is large. */
  readonly sha256: string;
}

/** What decides the samples: kept in a checkpoint, and compared when a run goes on from it. */
export interface DataFingerprint {
  readonly settings: Readonly<Record<string, string | number | boolean | null>>;
  readonly files: readonly FileFingerprint[];
}

/** How far a source of a dataset has been read. */
export interface SourceProgress {
  readonly path: string;
  /** Part of the samples that come from it. */
  readonly share: number;
  readonly samples: number;
  /** Passes over it, with a fraction. */
  readonly epochs: number;
}

/** Random access to samples of one fixed length. A sample depends on its index only. */
export interface Dataset {
  /** Number of samples, at least 1; Infinity for a generated dataset. */
  readonly length: number;
  /** Bytes of text that each token stands for, by id; absent where the dataset does not know. */
  readonly tokenBytes?: ArrayLike<number> | undefined;
  /** Sample `index` of 0..length-1. Throws an MbridgeError (exit 7) that names the place of bad data. */
  sample(index: number): Sample;
  /**
   * Only where a dataset orders its samples itself: `sample(0)`, `sample(1)`, ... is then their order over the whole run,
   * past `length` too, and this the pass that `index` belongs to.
   */
  epoch?(index: number): number;
  /** Of a dataset that orders itself, after `consumed` samples. */
  progress?(consumed: number): SourceProgress[];
  /** One line for logs: what is read, from where, how much. */
  describe(): string;
  /** Absent, or null, where a dataset cannot tell whether it has changed. Reads a bounded part of the data. */
  fingerprint?(): DataFingerprint | null;
  close(): void;
}

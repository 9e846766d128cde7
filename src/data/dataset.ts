/** One training sample: seq + 1 tokens, of which the first seq are inputs and the last seq are targets. */
export interface Sample {
  /** seq + 1 token ids, each in [0, vocabulary). Valid until the next `sample` call of the same dataset. */
  readonly inputIds: Int32Array;
  /** seq + 1 entries; entry j is 1 when predicting token j counts (entry 0 never does). Absent: all count. */
  readonly lossMask?: Uint8Array;
}

/** Random access to samples of one fixed length. A sample depends on its index only. */
export interface Dataset {
  /** Number of samples, at least 1; Infinity for a generated dataset. */
  readonly length: number;
  /** Sample `index` of 0..length-1. Throws an MbridgeError (exit 7) that names the place of bad data. */
  sample(index: number): Sample;
  /** One line for logs: what is read, from where, how much. */
  describe(): string;
  close(): void;
}

/** What attention is asked to compute. */
export interface AttentionSizes {
  batch: number;
  /** Queries of each sequence. */
  seq: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  deterministic: boolean;
  /** Keys of each sequence; as many as queries by default. */
  keys?: number;
  /** Position of the first query among the keys, 0 by default. A query sees the keys up to its own position. */
  offset?: number;
}

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
  /** Rows from a sequence's first key to the next one's; `keys` by default, more in a cache that is not full. */
  keyRows?: number;
  /** Position of the first query among the keys, 0 by default. A query sees the keys up to its own position. */
  offset?: number;
}

/** What a rank says of an update: the time of its own work in it, without waiting for others, and what work it has. */
export interface Pace {
  readonly ms: number;
  /** Ranks of the same pipeline stage have the same work. */
  readonly stage: number;
}

/** A communicator's membership. What it can do (collectives) is added by the implementation in `src/comm`. */
export interface ProcessGroup {
  /** For logs and errors: the key it was created under. */
  readonly name: string;
  /** Global ranks of the members, in the order of the grid. */
  readonly ranks: readonly number[];
  /** This process's index in `ranks`. */
  readonly rank: number;
  readonly size: number;
  destroy(): void;
}

/** What a rank holds for groups that it is in none of: a value, so that "not a member" and "never set" differ. */
export const NON_MEMBER: unique symbol = Symbol('mbridge.non-member');
export type NonMember = typeof NON_MEMBER;

/** What creates communicators. Every rank in any of `groups` calls it with the same key and lists, in the same order. */
export interface GroupRuntime<G extends ProcessGroup = ProcessGroup> {
  /** This process's global rank. */
  readonly rank: number;
  /** When given, a grid declared for another backend is refused. */
  readonly backend?: string;
  /**
   * Creates the one of `groups` that holds this rank, and resolves once all its members have joined.
   * The groups are disjoint; two calls are told apart by (key, member list), never by their ordinal.
   */
  createGroups(key: string, groups: readonly (readonly number[])[]): Promise<G | NonMember>;
}

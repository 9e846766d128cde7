import type { Pace } from '../../base/pace.js';

/**
 * The rendezvous store: a small key-value service that the workers of one run use to find each other at start-up, above
 * all to pass the 128-byte id of each communicator from the group's first rank to the others.
 */
export interface Store {
  /** How the ranks of other nodes are reached; null where all ranks of the run are on one node. */
  readonly network: Network | null;
  /** Sets a key once. Setting it again to other bytes is an error: two runs or two groups share a name. */
  set(key: string, value: Uint8Array): Promise<void>;
  /**
   * Waits until the key is set. Fails with MB_RENDEZVOUS_TIMEOUT (exit 4), naming the ranks that are missing, or with
   * MB_PEER_LOST (exit 5) as soon as a rank is gone before the key was set.
   */
  get(key: string, timeoutMs: number): Promise<Uint8Array>;
  /** Adds to a counter that starts at 0, and returns the sum. */
  add(key: string, delta: number): Promise<number>;
  /** Says that this rank begins an update, from 1, and how long its own work took in one before. Nobody is waited for. */
  begin(step: number, pace?: Pace): void;
  /** Says something to the process that serves the store. Nobody is waited for. */
  tell(text: string): void;
  /** Resolves once the connection to the server has ended, by either side. */
  readonly ended: Promise<void>;
  /**
   * Pauses this rank, which has begun no update after `step`, until it is known where the run ends. Resolves with the
   * last update that any rank has begun: with `step` itself once all ranks have paused there, so that all may end; with a
   * later one as soon as a rank has begun that. Fails with MB_STOP_TIMEOUT (exit 6), naming the ranks that did not come.
   */
  pause(step: number, timeoutMs: number): Promise<number>;
  /** Says that this rank leaves in order; without it, the others take the lost connection for a failure. */
  close(): Promise<void>;
}

/** What ranks that are on several nodes must know to talk without a store. */
export interface Network {
  /** An address of this process's node that the other nodes reach. */
  readonly address: string;
  /** The node of a rank: equal texts for ranks of one node. Fails as {@link Store.get}. */
  nodeOf(rank: number, timeoutMs: number): Promise<string>;
  /** 32 bytes that only the processes of this run can know, and that never cross the network. */
  key(name: string): Uint8Array;
}

/** The key of a communicator's id: unique by what the group is for and by who is in it. */
export function communicatorKey(group: string, ranks: readonly number[]): string {
  return `comm/${group}/${ranks.join(',')}`;
}

import type { Device } from '../engine/device.js';
import type { CommRuntime } from '../groups/comm/comm-runtime.js';
import type { Store } from '../job/rendezvous/store.js';

/** What a rank of {@link runRanks} is given. It is all closed when the rank's function has returned. */
export interface RankContext<Options = unknown> {
  /** 0..worldSize-1 */
  readonly rank: number;
  readonly worldSize: number;
  /** A CPU of this rank's own. */
  readonly device: Device;
  /** Makes groups of the ranks: for `setupGroups` and `ProcessGroupCollection.fromGrid`. */
  readonly runtime: CommRuntime;
  readonly store: Store;
  /** A copy of what the test gave. */
  readonly options: Options;
}

/** What the module of {@link runRanks} exports. */
export type RankFunction<Value = unknown, Options = unknown> = (
  context: RankContext<Options>,
) => Value | Promise<Value>;

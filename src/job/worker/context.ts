import type { Logger } from '../../base/logger.js';
import type { MemoryKeeper } from '../rendezvous/memory-keeper.js';
import type { Store } from '../rendezvous/store.js';
import type { RunConfig } from '../../config/schema.js';
import type { Pace } from '../../base/pace.js';
import type { SavedCheckpoint, StopSignal, WorkerEvent } from '../shared/messages.js';

export type { EvaluationEvent, SavedCheckpoint, StepEvent, StopSignal, WorkerEvent } from '../shared/messages.js';

/** What a worker process is given: all that training may know of the world around it. */
export interface WorkerContext {
  /** Global rank, 0..worldSize-1. */
  readonly rank: number;
  /** Rank on this node. */
  readonly localRank: number;
  /** Index of this rank's GPU: its local rank, or what `dist.ranks_per_gpu` makes of it. */
  readonly deviceIndex: number;
  readonly worldSize: number;
  readonly localWorldSize: number;
  readonly store: Store;
  /** Keeps copies of the state from one attempt of the run to the next; null where nobody does. */
  readonly memory: MemoryKeeper | null;
  /** Whether an attempt before this one has failed, and this one goes on. */
  readonly again: boolean;
  /** Resolved and validated; the same on every rank. */
  readonly config: RunConfig;
  /** What the program that started the run gave this module beside the configuration (JSON); else undefined. */
  readonly options: unknown;
  readonly device: 'cpu' | 'cuda';
  /** CPU threads this rank may use: cores / ranks of this node, at least 1. */
  readonly threads: number;
  /** The run's folder, shared by all ranks; `rank-<r>/` in it is this rank's own. */
  readonly runDir: string;
  /** Goes to `<runDir>/rank-<r>/log.ndjson`; the console shows rank 0 from info, the others from warn. */
  readonly log: Logger;
  /**
   * A result: `{type:'step',...}` or `{type:'result',...}`, from whichever rank has it (one rank only, or it is printed
   * twice). Printed on stdout by the launcher, or by this process where there is none. One that names its `step` is
   * also appended to `<runDir>/metrics.ndjson`. Does not wait.
   */
  emit(event: WorkerEvent): void;
  /**
   * To be called as a step begins: names the step in a failure report, and tells the launcher that this rank is alive.
   * @param pace of an earlier step, where it was measured: ranks that are slower than others of their stage are told
   */
  progress(step: number, pace?: Pace): void;
  /** To be called on one rank when a checkpoint is whole: what the run's last words lead to. */
  saved(checkpoint: SavedCheckpoint): void;
  /**
   * To be awaited between two steps by a loop that calls {@link progress}: whether the run ends after `step`, because it
   * was asked to stop. All ranks get the same answer: a step that one of them has begun is run by all.
   */
  endsAfter(step: number): Promise<boolean>;
  /**
   * 'no', or the signal that asked the run to end. To be polled between steps by a loop in which the ranks agree on one
   * answer by themselves. Before the first call of this or of {@link progress}, a signal ends the process at once.
   * Signals are only seen when the event loop turns, so a loop that polls must await something real (a fetch) each step.
   */
  stopRequested(): 'no' | StopSignal;
}

/** What `src/train/run-worker.ts` exports as `runWorker`. It resolves when this rank's part of the run is done. */
export type RunWorker = (context: WorkerContext) => Promise<void>;

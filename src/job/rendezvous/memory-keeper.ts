/**
 * Who keeps copies of the ranks' state in memory while the ranks themselves come and go: the launcher of a run on one
 * node. Each rank gives it one memory, by a file descriptor.
 */
export interface MemoryKeeper {
  /** The update whose copies all ranks go on from; null where there is none, or a checkpoint is newer. */
  readonly step: number | null;
  /** What each rank gave in an earlier attempt, as a path to open; null where it gave none. */
  readonly paths: readonly (string | null)[];
  /** Gives this rank's memory, in the place of what it gave before. The descriptor stays open in this process. */
  give(fd: number): void;
  /** Says that this rank's copy of an update is whole. */
  copied(step: number): void;
  /**
   * Resolves once all ranks have whole copies of update `step`: only then may one of them overwrite the copy before.
   * Fails with MB_MEMORY_COPY_HANG (exit 6) where that takes longer.
   */
  whole(step: number, timeoutMs: number): Promise<void>;
}

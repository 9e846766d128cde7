import type { RunConfig } from '../config/schema.js';

/** Who starts the ranks of a run. */
export interface CopiesFacts {
  /** Whether torchrun or its like does. */
  readonly external: boolean;
  /** Nodes of a run on several. */
  readonly nodes: object | undefined;
  readonly maxRestarts: number;
  /** Whether the ranks run a module of the program's own. */
  readonly own: boolean;
}

/** Why the copies in memory that a configuration asks for are not made; undefined where they are, or none are wanted. */
export function reasonNotToCopy({ checkpoint }: RunConfig, facts: CopiesFacts): string | undefined {
  if (checkpoint.non_persistent_save_interval === null) return undefined;
  const { external, nodes, maxRestarts, own } = facts;
  const because = external
    ? 'what starts the ranks does not keep their memory; copies need mbridge pretrain --nproc N --max-restarts N'
    : nodes !== undefined
      ? 'on several nodes no launcher keeps the memory of all ranks; restarts go on from the last checkpoint'
      : own
        ? 'only the training loop of this package goes on from copies, and the ranks run a module of their own'
        : maxRestarts === 0
          ? 'only --max-restarts goes on from copies'
          : undefined;
  return because && `checkpoint.non_persistent_save_interval is ignored: ${because}`;
}

/** The same run without copies in memory. */
export function withoutCopies(config: RunConfig): RunConfig {
  return { ...config, checkpoint: { ...config.checkpoint, non_persistent_save_interval: null } };
}

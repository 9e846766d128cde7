import { join } from 'node:path';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { isLeftoverName } from '../format/checkpoint-format.js';
import {
  claimSaves,
  exists,
  listRoot,
  removeFolder,
  restoreReplaced,
  type RootListing,
} from '../format/checkpoint-root.js';
import { ofLineage } from '../format/lineage.js';

export interface Retention {
  /** How many newest checkpoints to keep; null keeps all. */
  readonly keepLast: number | null;
  /** Also keep those whose step is a multiple of this. */
  readonly keepEvery: number | null;
}

/**
 * Names of the checkpoints to remove. The one that `latest` names is never among them, nor one with a later step than
 * that: those are of another branch of the run, which the user went back from.
 */
export function planPrune({ checkpoints, latest }: RootListing, { keepLast, keepEvery }: Retention): string[] {
  if (keepLast === null) return [];
  const current = checkpoints.find(({ name }) => name === latest)?.step ?? Infinity;
  const past = checkpoints.filter(({ step }) => step <= current);
  return past
    .slice(0, Math.max(0, past.length - keepLast))
    .filter(({ step }) => keepEvery === null || step % keepEvery !== 0)
    .map(({ name }) => name);
}

export interface Pruned {
  /** Folders that were removed, oldest first. */
  readonly removed: readonly string[];
  /** Folders of the checkpoints that stay. */
  readonly kept: readonly string[];
}

/** Removes what {@link planPrune} names, and with `leftovers` what unfinished saves and removals left. */
export async function prune(root: string, retention: Retention, options: PruneOptions = {}): Promise<Pruned> {
  const listing = await listRoot(root);
  if (listing === null) throw badCheckpoint('NONE', root, 'does not exist', 'name a folder of checkpoints');
  const leftovers = options.leftovers ? listing.unfinished.filter(isLeftoverName) : [];
  const { lineage = null } = options;
  const checkpoints =
    lineage === null || retention.keepLast === null
      ? listing.checkpoints
      : await ofLineage(root, listing.checkpoints, lineage);
  const removed = [...planPrune({ ...listing, checkpoints }, retention), ...leftovers];
  if (!options.dryRun) for (const name of removed) await removeFolder(root, name);
  const kept = listing.checkpoints.filter(({ name }) => !removed.includes(name)).map(({ name }) => name);
  return { removed: removed.map((name) => join(root, name)), kept: kept.map((name) => join(root, name)) };
}

export interface PruneOptions {
  readonly dryRun?: boolean;
  /** Also remove what unfinished saves left; not while a run saves there. */
  readonly leftovers?: boolean;
  /** Leaves checkpoints of other lineages alone, and does not count them. */
  readonly lineage?: string | null;
}

/**
 * As {@link prune}, of a folder that no run saves in.
 * @throws MbridgeError MB_FOLDER_CLAIMED (exit 7) where one does
 */
export async function pruneClaimed(root: string, retention: Retention, options: PruneOptions): Promise<Pruned> {
  if (options.dryRun === true || !(await exists(root))) return prune(root, retention, options);
  const claim = claimSaves(root);
  try {
    await restoreReplaced(root);
    return await prune(root, retention, options);
  } finally {
    claim.release();
  }
}

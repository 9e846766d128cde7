import { join } from 'node:path';
import { listRoot, removeFolder, type RootListing } from './checkpoint-root.js';

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

/** Removes what {@link planPrune} names, oldest first. Returns the folders. */
export async function prune(root: string, retention: Retention): Promise<string[]> {
  const listing = await listRoot(root);
  if (listing === null) return [];
  const names = planPrune(listing, retention);
  for (const name of names) await removeFolder(root, name);
  return names.map((name) => join(root, name));
}

import { randomBytes } from 'node:crypto';
import { lstat, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FolderClaim } from '../../base/folder-claim.js';
import { makeFolder } from '../../base/make-folder.js';
import { readTextFile } from '../../base/regular-file.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { errnoOf } from '../../base/system-error.js';
import {
  COMMIT_FILE,
  INDEX_FILE,
  isCheckpointFile,
  isLeftoverName,
  LATEST_FILE,
  nameOfReplaced,
  removedFolderName,
  STATE_FILE,
  stepOfFolder,
  TEMPORARY,
} from './checkpoint-format.js';
import { replaceDurably, syncFolder } from '../files/durable-files.js';

/** First letters of a file that only shows that the folder can be written. */
const PROBE = `${TEMPORARY}probe-`;

/** What is found in a folder of checkpoints. */
export interface RootListing {
  /** Committed ones, by step. One that made way for another, which then did not come, counts under the name that it has. */
  readonly checkpoints: readonly { readonly name: string; readonly step: number }[];
  /** Folders of saves or removals that did not end; never loaded. */
  readonly unfinished: readonly string[];
  /** What the `latest` file says; null without one. */
  readonly latest: string | null;
  /** Names of everything else. */
  readonly others: readonly string[];
}

/** @returns null where there is no such folder */
export async function listRoot(root: string): Promise<RootListing | null> {
  let names: string[];
  try {
    names = (await readdir(root)).sort();
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return null;
    throw checkpointIoError('read', root, cause);
  }
  const committed = async (name: string): Promise<boolean> => exists(join(root, name, COMMIT_FILE));
  const checkpoints: { name: string; step: number }[] = [];
  const unfinished: string[] = [];
  const others: string[] = [];
  for (const name of names) {
    const step = stepOfFolder(name);
    // Another rank's probe may be there for a moment.
    if (name === LATEST_FILE || name.startsWith(PROBE)) continue;
    const final = nameOfReplaced(name);
    if (final !== undefined && !(await committed(final)) && (await committed(name))) {
      checkpoints.push({ name, step: stepOfFolder(final) as number });
    } else if (await isLeftover(root, name)) unfinished.push(name);
    else if (step === undefined) others.push(name);
    else if (await committed(name)) checkpoints.push({ name, step });
    else unfinished.push(name);
  }
  checkpoints.sort((a, b) => a.step - b.step);
  return { checkpoints, unfinished, latest: names.includes(LATEST_FILE) ? readLatest(root) : null, others };
}

/** Whether we have left this behind: a folder of a name that only we give, with nothing in it but what we write. */
async function isLeftover(root: string, name: string): Promise<boolean> {
  if (!isLeftoverName(name)) return false;
  try {
    const path = join(root, name);
    return (await lstat(path)).isDirectory() && (await readdir(path)).every(isCheckpointFile);
  } catch (cause) {
    // Gone in this moment, or not to be read by us.
    if (['ENOENT', 'EACCES', 'EPERM'].includes(errnoOf(cause) ?? '')) return false;
    throw checkpointIoError('read', join(root, name), cause);
  }
}

/** What `checkpoint.load` leads to. */
export interface Found {
  /** Folder of a committed checkpoint; null where a run starts fresh. */
  readonly folder: string | null;
  /** What the user should know: unfinished saves, a pointer that leads nowhere. */
  readonly warnings: readonly string[];
}

/**
 * Finds the checkpoint to load: `path` itself, or the one that the `latest` file in it names.
 * @throws MbridgeError exit 7 for a checkpoint without its commit marker, or a folder of something else
 */
export async function findCheckpoint(path: string): Promise<Found> {
  if (await exists(join(path, COMMIT_FILE))) return { folder: path, warnings: [] };
  const listing = await listRoot(path);
  if (listing === null) return { folder: null, warnings: [] };
  const { checkpoints, unfinished, latest, others } = listing;
  if (others.includes(INDEX_FILE) || others.includes(STATE_FILE)) {
    throw badCheckpoint(
      'NOT_COMMITTED',
      path,
      `has no ${COMMIT_FILE}: its save did not end`,
      'use an earlier checkpoint',
    );
  }
  if (checkpoints.length === 0 && others.some((name) => name.endsWith('.safetensors') || name === 'config.json')) {
    const hint = 'weights of a Hugging Face folder are taken by checkpoint.pretrained_checkpoint';
    throw badCheckpoint('NOT_A_CHECKPOINT', path, 'holds no checkpoint but other files', hint);
  }
  const warnings = unfinished.map((name) => `${join(path, name)}: a save or a removal that did not end; not loaded`);
  const newest = checkpoints.at(-1);
  if (newest === undefined) return { folder: null, warnings };
  const current = checkpoints.find(
    ({ name }) => latest !== null && (name === latest || nameOfReplaced(name) === latest),
  );
  if (current !== undefined) return { folder: join(path, current.name), warnings };
  const why = latest === null ? `there is no ${LATEST_FILE} file` : `${LATEST_FILE} names ${JSON.stringify(latest)}`;
  return {
    folder: join(path, newest.name),
    warnings: [...warnings, `${path}: ${why}; taking ${newest.name}, the newest`],
  };
}

/** As {@link findCheckpoint}, where there must be one. */
export async function requireCheckpoint(path: string, warn: (text: string) => void): Promise<string> {
  const { folder, warnings } = await findCheckpoint(path);
  for (const warning of warnings) warn(warning);
  if (folder !== null) return folder;
  const found = (await exists(path)) ? 'holds no checkpoint' : 'does not exist';
  throw badCheckpoint('NONE', path, found, 'name a checkpoint, or a folder of checkpoints');
}

/**
 * Makes a folder of checkpoints this process's own, until it ends or gives it back.
 * @param otherwise what the user may do instead, for the hint
 * @throws MbridgeError MB_FOLDER_CLAIMED (exit 7) where another process writes there
 */
export function claimSaves(root: string, otherwise?: string): FolderClaim {
  try {
    makeFolder(root);
    return new FolderClaim(root, 'save', otherwise);
  } catch (cause) {
    throw checkpointIoError('write', root, cause);
  }
}

/** Makes `checkpoint.save`'s folder and proves that this process can write in it, before any time is spent. */
export async function prepareRoot(root: string, rank: number): Promise<void> {
  const probe = join(root, `${PROBE}${rank}-${process.pid}-${randomBytes(4).toString('hex')}`);
  try {
    makeFolder(root);
    const handle = await open(probe, 'wx');
    await handle.writeFile('x');
    await handle.close();
    await rm(probe);
  } catch (cause) {
    throw checkpointIoError('write', root, cause);
  }
}

/** Puts checkpoints back that made way for others which did not come. Nobody else may be writing in the folder. */
export async function restoreReplaced(root: string): Promise<void> {
  for (const { name } of (await listRoot(root))?.checkpoints ?? []) {
    const final = nameOfReplaced(name);
    if (final === undefined || (await exists(join(root, final)))) continue;
    try {
      await rename(join(root, name), join(root, final));
      await syncFolder(root);
    } catch (cause) {
      throw checkpointIoError('write', join(root, final), cause);
    }
  }
}

/** Moves the `latest` pointer to a committed checkpoint. */
export async function setLatest(root: string, name: string): Promise<void> {
  await replaceDurably(join(root, LATEST_FILE), `${name}\n`, join(root, `${TEMPORARY}latest`));
}

/** Removes one of our folders so that no reader ever sees a part of it. */
export async function removeFolder(root: string, name: string): Promise<void> {
  try {
    const doomed = isLeftoverName(name) ? name : removedFolderName(name);
    if (doomed !== name) {
      await rm(join(root, doomed), { recursive: true, force: true });
      await rename(join(root, name), join(root, doomed));
      await syncFolder(root);
    }
    await rm(join(root, doomed), { recursive: true, force: true });
  } catch (cause) {
    throw checkpointIoError('write', join(root, name), cause);
  }
}

/** @throws MbridgeError exit 7 where the system does not tell */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR') return false;
    throw checkpointIoError('read', path, cause);
  }
}

function readLatest(root: string): string {
  try {
    return readTextFile(join(root, LATEST_FILE), 4096).trim();
  } catch (cause) {
    throw checkpointIoError('read', join(root, LATEST_FILE), cause);
  }
}

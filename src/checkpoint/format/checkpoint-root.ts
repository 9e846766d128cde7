import { open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../../base/make-folder.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { errnoOf } from '../../base/system-error.js';
import { COMMIT_FILE, INDEX_FILE, LATEST_FILE, STATE_FILE, stepOfFolder, TEMPORARY } from './checkpoint-format.js';
import { replaceDurably, syncFolder } from '../files/durable-files.js';

/** First letters of a file that only shows that the folder can be written. */
const PROBE = `${TEMPORARY}probe-`;

/** What is found in a folder of checkpoints. */
export interface RootListing {
  /** Committed ones, by step. */
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
  const checkpoints: { name: string; step: number }[] = [];
  const unfinished: string[] = [];
  const others: string[] = [];
  for (const name of names) {
    const step = stepOfFolder(name);
    // Another rank's probe may be there for a moment.
    if (name === LATEST_FILE || name.startsWith(PROBE)) continue;
    if (name.startsWith(TEMPORARY)) unfinished.push(name);
    else if (step === undefined) others.push(name);
    else if (await exists(join(root, name, COMMIT_FILE))) checkpoints.push({ name, step });
    else unfinished.push(name);
  }
  checkpoints.sort((a, b) => a.step - b.step);
  return { checkpoints, unfinished, latest: names.includes(LATEST_FILE) ? await readLatest(root) : null, others };
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
  if (checkpoints.some(({ name }) => name === latest)) return { folder: join(path, latest as string), warnings };
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

/** Makes `checkpoint.save`'s folder and proves that this process can write in it, before any time is spent. */
export async function prepareRoot(root: string, rank: number): Promise<void> {
  const probe = join(root, `${PROBE}${rank}-${process.pid}`);
  try {
    makeFolder(root);
    const handle = await open(probe, 'w');
    await handle.writeFile('x');
    await handle.close();
    await rm(probe);
  } catch (cause) {
    throw checkpointIoError('write', root, cause);
  }
}

/** Moves the `latest` pointer to a committed checkpoint. */
export async function setLatest(root: string, name: string): Promise<void> {
  await replaceDurably(join(root, LATEST_FILE), `${name}\n`, join(root, `${TEMPORARY}latest`));
}

/** Removes a folder so that no reader ever sees a part of it. */
export async function removeFolder(root: string, name: string): Promise<void> {
  try {
    const doomed = name.startsWith(TEMPORARY) ? name : `${TEMPORARY}removed-${name}`;
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

async function readLatest(root: string): Promise<string> {
  try {
    return (await readFile(join(root, LATEST_FILE), 'utf8')).trim();
  } catch (cause) {
    throw checkpointIoError('read', join(root, LATEST_FILE), cause);
  }
}

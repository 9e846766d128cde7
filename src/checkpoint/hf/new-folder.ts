import { randomBytes } from 'node:crypto';
import { rmdirSync, rmSync } from 'node:fs';
import { readdir, rename, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { isClaimFile } from '../../base/folder-claim.js';
import { makeFolder } from '../../base/make-folder.js';
import { errnoOf } from '../../base/system-error.js';
import { checkpointIoError } from '../files/checkpoint-error.js';
import { syncFolder } from '../files/durable-files.js';
import { TEMPORARY } from '../format/checkpoint-format.js';
import { claimSaves, exists } from '../format/checkpoint-root.js';

/**
 * Writes a folder: it appears whole, under its name, at the end.
 * @param write fills another folder beside it
 * @throws MbridgeError exit 7 for a target that is not empty, or cannot be written
 */
export async function writeNewFolder<Written>(
  target: string,
  write: (folder: string) => Promise<Written>,
): Promise<Written> {
  const folder = resolve(target);
  const isNew = !(await exists(folder));
  const claim = claimSaves(folder, 'name another folder');
  const temporary = join(dirname(folder), `${TEMPORARY}${basename(folder)}-${randomBytes(6).toString('hex')}`);
  const discard = (): void => {
    rmSync(temporary, { recursive: true, force: true });
    claim.release();
    if (isNew) removeIfEmpty(folder);
  };
  process.on('exit', discard); // a signal ends the process in the middle
  try {
    await requireEmpty(folder);
    makeFolder(temporary);
    const result = await write(temporary);
    await syncFolder(temporary);
    claim.release();
    await rmdir(folder).catch((cause: unknown) => {
      if (errnoOf(cause) !== 'ENOENT') throw cause;
    });
    await rename(temporary, folder);
    await syncFolder(dirname(folder));
    return result;
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined); // the first error says more
    throw checkpointIoError('write', folder, cause);
  } finally {
    process.off('exit', discard);
    claim.release();
    if (isNew) removeIfEmpty(folder);
  }
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // it holds the export, or is gone
  }
}

/** @throws MbridgeError MB_CHECKPOINT_EXISTS (exit 7) where a folder to export to holds anything */
export async function requireEmpty(folder: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return;
    throw checkpointIoError('read', folder, cause);
  }
  if (names.every(isClaimFile)) return;
  throw new MbridgeError('io', 'MB_CHECKPOINT_EXISTS', `${folder} is not empty`, { hint: 'name a new folder' });
}

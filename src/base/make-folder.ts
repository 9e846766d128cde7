import { closeSync, fsyncSync, mkdirSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes a folder and what is missing above it, each forced to the disk in the folder that it is made in. Where that
 * fails, the error is that of the first one that could not be made. (mkdir's own `recursive` names another reason, and never returns on some file systems.)
 */
export function makeFolder(path: string): void {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) return;
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent);
  try {
    mkdirSync(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause; // another process was faster
    return;
  }
  syncParent(parent);
}

function syncParent(parent: string): void {
  let descriptor: number;
  try {
    descriptor = openSync(parent, 'r');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EACCES') return; // may be entered and written, but not read
    throw cause;
  }
  try {
    fsyncSync(descriptor);
  } catch (cause) {
    // Some file systems do not sync folders.
    if (!['EINVAL', 'ENOTSUP'].includes((cause as NodeJS.ErrnoException).code ?? '')) throw cause;
  } finally {
    closeSync(descriptor);
  }
}

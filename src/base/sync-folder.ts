import { closeSync, fsyncSync, openSync } from 'node:fs';

/** Forces a folder's entries (new names, renames) to the disk. @throws the system's error */
export function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

import { realpathSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';

/**
 * Whether `name` in `folder`, where it is a symbolic link, leads to a file of the same repository: inside the folder,
 * or, as the cache of the Hugging Face Hub keeps them (`snapshots/<revision>/<name>` -> `blobs/<hash>`), in the
 * repository's blobs. A folder that was copied from elsewhere may hold links to anything. True where there is no file.
 */
export function staysInside(folder: string, name: string): boolean {
  try {
    const root = realpathSync(folder);
    const target = realpathSync(join(root, name));
    const snapshots = dirname(root);
    const roots = basename(snapshots) === 'snapshots' ? [root, join(dirname(snapshots), 'blobs')] : [root];
    return roots.some((inside) => target.startsWith(inside + sep));
  } catch {
    return true;
  }
}

import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const native = join(dirname(fileURLToPath(import.meta.url)), '..', 'native');

/** Paths of the files below native/, or a folder like it, from there; without what is built. */
export function nativeFiles(folder = native) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return paths.map((path) => path.slice(folder.length + 1)).filter((path) => !path.startsWith('build/'));
}

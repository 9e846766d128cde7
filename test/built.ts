import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const STAMP = 'dist/src/cli/main.js';

/** Newest change under a folder, Unix milliseconds; 0 where it is not there. */
function newest(folder: string): number {
  if (!existsSync(join(ROOT, folder))) return 0;
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' });
  return Math.max(0, ...names.map((name) => statSync(join(ROOT, folder, name)).mtimeMs));
}

/** The command line and the workers run from compiled code: its absence or age is said once, before hundreds of results. */
export function setup(): void {
  if (!existsSync(join(ROOT, STAMP))) throw new Error(`${STAMP} is missing: run npm run build`);
  if (Math.max(newest('src'), newest('recipes')) > newest('dist')) {
    console.warn('dist/ is older than the sources: tests of whole processes see the old code until npm run build');
  }
}

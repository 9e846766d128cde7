import { join } from 'node:path';
import { execa } from 'execa';
import { beforeAll } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');

/** Where the programs of `npm run build:tests` lie. */
export const BUILD = join(ROOT, 'native', 'build');

/** Builds them before the tests of a file that runs them; where nothing has changed, that takes a second. */
export function needsTestPrograms(): void {
  beforeAll(async () => {
    const script = join(ROOT, 'scripts', 'build-native.mjs');
    const { failed, all } = await execa(process.execPath, [script, 'tests'], { reject: false, all: true });
    if (failed) throw new Error(all);
  }, 1_800_000);
}

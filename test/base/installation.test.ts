import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { installation } from '../../src/base/installation.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-installation-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

test.each([
  ['work/mbridge', ['src/index.ts'], 'clone', 'npx mbridge', 'npm install'],
  ['app/node_modules/mbridge', ['../../package.json'], 'package', 'npx mbridge', 'npm install'],
  ['usr/lib/node_modules/mbridge', [], 'package', 'mbridge', 'npm install -g'],
  // A project may be called lib.
  ['home/lib/node_modules/mbridge', ['../../package.json'], 'package', 'npx mbridge', 'npm install'],
  ['opt/my mbridge', ['runtime/node'], 'bundle', undefined, 'npm install'],
])('%s with %j is a %s', (path, files, kind, command, npmInstall) => {
  const root = join(folder, path);
  for (const file of files) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), '');
  }
  expect(installation(root)).toEqual({ kind, command: command ?? `'${root}/mbridge'`, npmInstall });
});

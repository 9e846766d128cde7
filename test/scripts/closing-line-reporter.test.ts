import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'mbridge-reporter-'));
symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
afterEach(() => rmSync(folder, { recursive: true }));

test('the last line counts tests, files that do not load and errors outside of tests', async () => {
  const head = "import { expect, test } from 'vitest';\n";
  const files = {
    good: `${head}test('a', () => {}); test('b', () => {}); test.skip('c', () => {});`,
    bad: `${head}test('a', () => { expect(1).toBe(2); });`,
    broken: "import './missing.js';",
    late: `${head}test('a', () => { setTimeout(() => { throw new Error('late'); }, 0); });`,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, `${name}.test.ts`), text);
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs');
  const reporter = join(ROOT, 'scripts/closing-line-reporter.mjs');
  const { stdout, exitCode } = await execa(
    process.execPath,
    [vitest, 'run', '--root', folder, '--reporter', reporter],
    {
      reject: false,
    },
  );
  expect(stdout.trimEnd().split('\n').at(-1)).toBe('3 passed, 3 failed, 1 skipped');
  expect(exitCode).toBe(1);
});

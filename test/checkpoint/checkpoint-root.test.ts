import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findCheckpoint } from '../../src/checkpoint/checkpoint-root.js';
import { temporaryFolder } from './runs.js';

test('a save that did not end is warned of, the probe of a rank that begins is not', async () => {
  const root = temporaryFolder();
  mkdirSync(join(root, '.tmp-step-00000002-abc'));
  writeFileSync(join(root, '.tmp-probe-1-4711'), 'x');
  const { folder, warnings } = await findCheckpoint(root);
  expect(folder).toBeNull();
  expect(warnings).toEqual([expect.stringMatching(/step-00000002-abc: a save or a removal that did not end/)]);
});

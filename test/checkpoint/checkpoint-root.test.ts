import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkpointIoError } from '../../src/checkpoint/files/checkpoint-error.js';
import { findCheckpoint } from '../../src/checkpoint/format/checkpoint-root.js';
import { temporaryFolder } from './runs.js';

test('a save that did not end is warned of, the probe of a rank that begins is not', async () => {
  const root = temporaryFolder();
  mkdirSync(join(root, '.tmp-step-00000002-abc'));
  writeFileSync(join(root, '.tmp-probe-1-4711'), 'x');
  const { folder, warnings } = await findCheckpoint(root);
  expect(folder).toBeNull();
  expect(warnings).toEqual([expect.stringMatching(/step-00000002-abc: a save or a removal that did not end/)]);
});

test('a checkpoint that another run has saved meanwhile is no damaged disk', () => {
  const root = temporaryFolder();
  for (const name of ['mine', 'theirs']) {
    mkdirSync(join(root, name));
    writeFileSync(join(root, name, 'x'), '');
  }
  const publish = (): void => {
    try {
      renameSync(join(root, 'mine'), join(root, 'theirs'));
    } catch (cause) {
      throw checkpointIoError('write', 'theirs', cause);
    }
  };
  expect(publish).toThrow(
    expect.objectContaining({
      message: 'cannot write theirs: another run wrote there at the same time',
      hint: 'give each run a folder of its own to save in',
    }),
  );
});

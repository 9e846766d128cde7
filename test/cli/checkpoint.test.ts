import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CheckpointSummary, RootSummary } from '../../src/checkpoint/run/inspect.js';
import { fixture, temporaryFolder } from '../checkpoint/runs.js';
import { mbridge } from './mbridge.js';

async function succeeds(...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await mbridge(['checkpoint', ...args]);
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

test('inspect: a folder of checkpoints and one of them, as text and as JSON, count the same bytes', async () => {
  const root = join(temporaryFolder(), 'saves');
  await succeeds('import', fixture.folder, root);
  mkdirSync(join(root, '.tmp-step-00000009-abc'));
  const folder = join(root, 'step-00000000');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => statSync(join(folder, name)))
    .filter((found) => found.isFile());
  const bytes = files.reduce((sum, { size }) => sum + size, 0);

  const saved = statSync(join(folder, 'commit.json')).mtime.toISOString();
  const whole = JSON.parse(await succeeds('inspect', root, '--json')) as RootSummary;
  expect(whole.checkpoints).toEqual([{ name: 'step-00000000', step: 0, bytes, saved }]);
  const one = JSON.parse(await succeeds('inspect', folder, '--json')) as CheckpointSummary;
  expect(one).toMatchObject({ bytes, files: files.length });

  const size = `${(bytes / 1e6).toFixed(1)} MB`;
  expect(await succeeds('inspect', root)).toBe(
    [
      root,
      `  step-00000000  ${size}  ${saved}  <- latest`,
      '  .tmp-step-00000009-abc  not committed: a save or a removal that did not end',
    ].join('\n'),
  );
  const sizes = Object.entries(one.state.model).map(([key, value]) => `${key} ${value}`);
  const versions = Object.entries(one.state.versions).map(([key, value]) => `${key} ${value}`);
  const expected = [
    folder,
    '  step        0 (0 samples)',
    `  parameters  ${one.parameters.toLocaleString('en-US')} in ${one.tensors} tensors`,
    '  types       weight F32',
    `  files       ${files.length}, ${size}, saved ${saved}`,
    '  precision   as imported',
    '  optimizer   none (weights alone)',
    '  saved by    an import',
    `  model       ${sizes.join(', ')}`,
    `  versions    ${versions.join(', ')}`,
  ];
  expect(await succeeds('inspect', folder)).toBe(expected.join('\n'));
  const listed = (await succeeds('inspect', folder, '--tensors')).split('\n');
  expect(listed.slice(0, expected.length)).toEqual(expected);
  expect(listed).toHaveLength(expected.length + one.tensors);
  expect(listed).toContain('  model.norm.weight  F32 [64]  1 pieces');
});

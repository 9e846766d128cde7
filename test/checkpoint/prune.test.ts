import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { stepFolderName } from '../../src/checkpoint/format/checkpoint-format.js';
import { planPrune } from '../../src/checkpoint/run/prune.js';
import { mbridge } from '../cli/mbridge.js';
import { temporaryFolder } from './runs.js';

function listing(steps: readonly number[], latest: number | null): Parameters<typeof planPrune>[0] {
  const checkpoints = steps.map((step) => ({ name: stepFolderName(step), step }));
  return { checkpoints, unfinished: [], others: [], latest: latest === null ? null : stepFolderName(latest) };
}

test.each<[string, number[], number | null, number | null, number | null, number[]]>([
  ['no limit', [1, 2, 3], 3, null, null, []],
  ['the last two', [1, 2, 3], 3, 2, null, [1]],
  ['more than there are', [1, 2], 2, 5, null, []],
  ['every fourth too', [2, 4, 6, 8, 10], 10, 1, 4, [2, 6]],
  ['after going back to 4, what is later stays', [2, 3, 4, 8, 9], 4, 1, null, [2, 3]],
  ['without a pointer, the newest counts', [1, 2, 3], null, 1, null, [1, 2]],
])('%s', (_, steps, latest, keepLast, keepEvery, removed) => {
  expect(planPrune(listing(steps, latest), { keepLast, keepEvery })).toEqual(removed.map(stepFolderName));
});

test('mbridge checkpoint prune removes whole folders and leftovers, or only says so', async () => {
  const root = temporaryFolder();
  for (const step of [1, 2, 3]) {
    mkdirSync(join(root, stepFolderName(step)));
    writeFileSync(join(root, stepFolderName(step), 'commit.json'), '{}');
  }
  mkdirSync(join(root, '.tmp-step-00000004-abc'));
  mkdirSync(join(root, 'mine'));
  writeFileSync(join(root, 'latest'), 'step-00000003\n');
  const all = readdirSync(root);
  const run = (...args: string[]): ReturnType<typeof mbridge> => mbridge(['checkpoint', 'prune', root, ...args]);
  const dry = await run('--keep-last', '1', '--dry-run');
  expect(dry.stdout).toContain(`would remove ${join(root, 'step-00000001')}`);
  expect(readdirSync(root)).toEqual(all);
  const real = await run('--keep-last', '1', '--json');
  expect(JSON.parse(real.stdout)).toMatchObject({ ok: true, kept: [join(root, 'step-00000003')] });
  expect(readdirSync(root).sort()).toEqual(['latest', 'mine', 'step-00000003']);
  expect((await run()).exitCode).toBe(2);
  expect((await mbridge(['checkpoint', 'prune', join(root, 'nowhere'), '--keep-last', '1'])).exitCode).toBe(7);
});

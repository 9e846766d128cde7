import { expect, test } from 'vitest';
import type { RunConfig } from '../../../src/config/schema.js';
import { goingOn, goingOnText, pauseBefore } from '../../../src/job/launch/restarts.js';

test.each([
  ['a crash', 1, 1, 5, 3, 1],
  ['a hang', 3, 1, 6, 3, 1],
  ['a third crash without progress', 3, 3, 5, 3, 4],
  ['many crashes without progress', 30, 30, 5, 99, 60],
  ['one more than are allowed', 4, 1, 5, 3, null],
  ['none are allowed', 1, 1, 5, undefined, null],
  ...[1, 2, 3, 4, 7, 8].map((code) => [`exit code ${code}`, 1, 1, code, 3, null] as const),
] as const)(
  '%s: attempt %d after %d idle ones, exit code %d, of %s, waits %s s',
  (_, attempt, idle, code, most, pause) => {
    expect(pauseBefore(attempt, idle, code, most === undefined ? undefined : { most })).toBe(pause);
  },
);

test.each([
  ['nothing', null, null, 'start', 0, 'the start', undefined],
  ['a checkpoint', 4, null, 'checkpoint', 4, 'update 4', undefined],
  ['copies', null, 3, 'memory', 3, 'update 3 in memory', true],
  ['copies that are newer than a checkpoint', 4, 6, 'memory', 6, 'update 6 in memory', true],
  ['copies of the same update', 4, 4, 'memory', 4, 'update 4 in memory', false],
  ['a checkpoint that is newer than copies', 4, 3, 'checkpoint', 4, 'update 4', undefined],
] as const)('a restart after %s', async (_, saved, copied, from, step, text, unsaved) => {
  const config = { checkpoint: { save: 'saves' } } as RunConfig;
  const goOn = (): Promise<{ config: RunConfig; step: number | null }> => Promise.resolve({ config, step: saved });
  const next = await goingOn({ most: 1, goOn }, config, undefined, copied);
  expect(next).toEqual({ config, from, step, unsaved });
  expect(goingOnText(next)).toBe(text);
});

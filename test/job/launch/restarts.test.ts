import { expect, test } from 'vitest';
import { pauseBefore } from '../../../src/job/launch/restarts.js';

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

import { expect, test } from 'vitest';
import { runCheck, type CheckPlace } from '../../src/bench/check/check.js';
import { withoutFp8 } from '../../src/train/fp8-device.js';

test.each([
  ['skipped', withoutFp8('A100', 'has 8.0').code, 'fp8_mixed takes a GPU of capability 9.0'],
  ['failed', 'MB_NOT_FINITE', 'the run ended with 4\nerror MB_NOT_FINITE: text'],
])('a run that ends is %s where it ends with %s', async (verdict, code, reason) => {
  const run = (): Promise<never> => Promise.reject(new Error(`the run ended with 4\nerror ${code}: text`));
  const check = { part: 'precision', name: 'a run', ranks: 1, run };
  const place: CheckPlace = {
    ...{ device: 'cuda', ranks: 1, ranksPerGpu: 1, fixtures: '', oracle: null },
    stop: new AbortController().signal,
  };
  expect(await runCheck(check, place, [0], new Map())).toMatchObject({ verdict, reason, measures: [] });
});

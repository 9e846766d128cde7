import { expect, test } from 'vitest';
import { isWatched } from '../../../src/job/launch/live-line.js';
import { liveText } from '../../../src/job/launch/live-text.js';

const STEP = {
  ...{ type: 'step' as const, step: 12, loss: 2, grad_norm: 1, lr: 1e-3, tokens: 2048, step_time_ms: 100 },
  ...{ eta_s: 100, tokens_seen: 51_200, memory_bytes: 132 * 2 ** 20, data_ms: 2 },
};

test.each([
  [{ step: undefined, seconds: 3 }, 79, 'starting, 0:03'],
  [{}, 119, '[#####...............]  24 %  1:38 left  51.2k tokens  val 2.7000  132.0 MiB  data 2 %  0:15 so far'],
  [{}, 79, '[#####...............]  24 %  1:38 left  51.2k tokens  val 2.7000  132.0 MiB'],
  [{ step: { ...STEP, step: 50 } }, 40, '[####################] 100 %  ending'],
])('with %j a line of %d columns is %s', (facts, columns, text) => {
  const line = liveText({ totalSteps: 50, step: STEP, validation: 2.7, seconds: 15, sinceStep: 2, ...facts }, columns);
  expect(line).toBe(text);
  expect(line.length).toBeLessThanOrEqual(columns);
});

const TERMINAL = { isTTY: true };
test.each([
  [TERMINAL, TERMINAL, {}, true],
  [TERMINAL, TERMINAL, { CI: 'false', NO_COLOR: '' }, true],
  [{}, TERMINAL, {}, false],
  [TERMINAL, {}, {}, false],
  [TERMINAL, TERMINAL, { CI: 'true' }, false],
  [TERMINAL, TERMINAL, { NO_COLOR: '1' }, false],
  [TERMINAL, TERMINAL, { TERM: 'dumb' }, false],
])('stdout %j and stderr %j with %j are watched: %s', (stdout, stderr, env, watched) => {
  expect(isWatched(stdout, stderr, env)).toBe(watched);
});

import { expect, test } from 'vitest';
import { LAYOUT_FLAGS, pretrainArgs, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { BIN } from '../cli/mbridge.js';
import { Running, waitFor } from '../job/launch/processes.js';
import { readOutputs } from '../helpers/outputs.js';

/** A run that would print no step by its interval. */
function start(...args: string[]): Running {
  const longRun = [...LAYOUT_FLAGS['tp2 pp2'], 'train.train_iters=100000', 'logger.log_interval=99999'];
  const folder = temporaryFolder();
  return new Running([process.execPath, BIN, ...pretrainArgs({ folder, args: [...longRun, ...args] })]);
}

test.each([
  ['its time is up', 0, 'train.exit_duration_in_mins=0.03'],
  ['it is to end after an update', 0, 'train.exit_interval=3'],
  ['a signal comes', 130, null],
])('the last step is shown where %s', async (_, exitCode, limit) => {
  const run = start(...(limit === null ? [] : [limit]));
  if (limit === null) {
    await waitFor('the training', () => (run.stderr.includes('updates on tp 2') ? true : undefined));
    process.kill(run.pid, 'SIGINT');
  }
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(exitCode);
  const { steps } = readOutputs(stdout).at(-1)!;
  expect(steps).toBeGreaterThan(0);
  expect(stepsOf(stdout).map(({ step }) => step)).toEqual([steps]);
});

test('the step is shown at which the training diverged', async () => {
  const { code, stdout, stderr } = await start('optimizer.lr=1e30', 'train.max_skipped_in_a_row=2').ended;
  expect(code, stderr).toBe(8);
  expect(stderr).toMatch(/^ {2}lower optimizer\.lr/m);
  expect(stderr).not.toMatch(/^ +at /m);
  const [shown, ...others] = stepsOf(stdout);
  expect(others).toEqual([]);
  expect(stderr).toContain(`the last is ${shown!.step}`);
});

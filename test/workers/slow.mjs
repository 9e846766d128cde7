// A worker that trains, rank `slow` with so many milliseconds of work more in each update.
import { openRun } from '../../dist/src/index.js';

export async function runWorker(context) {
  const { slow, ms } = context.options;
  const run = await openRun(context, { checkpoints: false });
  const act = () => {
    if (context.rank === slow) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
  };
  await run.train({ every: [{ every: 1, act }] });
  await run.close();
}

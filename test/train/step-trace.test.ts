import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { pretrain, temporaryFolder } from '../checkpoint/runs.js';
import { checkOutput } from '../helpers/outputs.js';
import { readTrace, within } from '../helpers/chrome-trace.js';

test('two updates of two pipeline stages are traced', { timeout: 60_000 }, async () => {
  const folder = temporaryFolder();
  const args = ['--nproc', '2', '--pp-size', '2', 'train.train_iters=4', 'logger.trace_steps=[2,3]'];
  const { exitCode, stderr } = await pretrain({ folder, args: [...args, 'checkpoint.save=null'] });
  expect(exitCode, stderr).toBe(0);
  const { layout } = checkOutput(JSON.parse(readFileSync(join(folder, 'run/run.json'), 'utf8')));
  const { micro_batches: microBatches } = layout as { micro_batches: number };
  expect(microBatches).toBeGreaterThan(1);
  for (const rank of [0, 1]) {
    const spans = readTrace(join(folder, `run/rank-${rank}/trace.json`), rank);
    const updates = spans.filter(({ cat }) => cat === 'updates');
    expect(updates.map(({ name }) => name)).toEqual(['update 2', 'update 3']);
    expect(spans.filter(({ name }) => name === 'read samples')).toHaveLength(2);
    for (const update of updates) {
      const inside = spans.filter((span) => span !== update && within(span, update));
      const of = (kind: string): (number | undefined)[] =>
        inside.filter(({ name }) => name === kind).map(({ args: about }) => about?.microBatch);
      const all = Array.from({ length: microBatches }, (_, i) => i);
      expect(of('forward')).toEqual(all);
      expect(of('backward')).toEqual(all);
      expect(inside.filter(({ name }) => name === 'optimizer')).toHaveLength(1);
      expect(inside.some(({ name, cat }) => name === 'exchange pp' && cat === 'collectives: pipeline')).toBe(true);
      // What a stage computes, it computes one after the other.
      const compute = inside.filter(({ cat }) => cat === 'compute');
      compute.slice(1).forEach((span, i) => {
        expect(span.ts).toBeGreaterThanOrEqual(compute[i]!.ts + compute[i]!.dur - 2);
      });
    }
  }
});

test('a range that is none is refused', async () => {
  const { exitCode, stdout } = await pretrain({ folder: temporaryFolder(), args: ['logger.trace_steps=[3,2]'] });
  expect([exitCode, stdout]).toEqual([3, expect.stringContaining('[3, 2] is not the first and the last')]);
});

import { describe, expect, test } from 'vitest';
import type { RunConfig } from '../../../src/config/schema.js';
import { StragglerNotice, findStragglers } from '../../../src/job/shared/straggler-notice.js';
import { loadFixture } from '../../helpers/fixture.js';
import { runWorkers } from '../../helpers/run-workers.js';
import { layoutConfig } from '../../parity/run-fixture.js';

describe('stragglers', () => {
  const stage0 = (ms: number): { ms: number; stage: number } => ({ ms, stage: 0 });
  test.each([
    ['one of four', [100, 101, 120, 99], [2]],
    ['none within 10 %', [100, 101, 109, 99], []],
    ['both of two that are slow', [100, 130, 100, 130, 100], [1, 3]],
    ['one of two', [100, 150], [1]],
    ['one alone has no others', [100], []],
    ['hardly any time at all', [1, 2.5, 1], []],
  ])('%s', (_, times, slow) => {
    expect(findStragglers(times.map(stage0)).map(({ rank }) => rank)).toEqual(slow);
  });

  test('are told from ranks of the same stage, which have the same work', () => {
    const paces = [100, 100, 200, 200, 100, 240].map((ms, rank) => ({ ms, stage: [0, 0, 1, 1, 0, 1][rank] as number }));
    expect(findStragglers(paces)).toEqual([{ rank: 5, ms: 240, median_ms: 200 }]);
  });

  test('are named once, after 50 updates of all ranks, and so is the end', () => {
    const said: string[] = [];
    const notice = new StragglerNotice(2, (text, slow) => said.push(`${slow.map(({ rank }) => rank).join()}: ${text}`));
    let step = 0;
    const updates = (count: number, second: number): void => {
      // A GPU measures one of five.
      for (const end = step + count; step < end; step += 5) {
        [100, second].forEach((ms, rank) => notice.note(rank, step, stage0(ms)));
      }
    };
    updates(50, 125);
    expect(said).toEqual([]);
    updates(60, 125);
    expect(said).toEqual([
      expect.stringMatching(/^1: over 50 updates rank 1 is 25 % slower .*\(125.0 ms .* 100.0 ms\)/),
    ]);
    updates(60, 100);
    expect(said[1]).toBe(': no rank is slower than the others any more, over 50 updates');
  });
});

test('a rank with more work of its own is named, not the one that waits for it', async () => {
  const config = layoutConfig(loadFixture('qwen3-tied'), { tp: 1, pp: 1, dp: 2 }, { 'train.train_iters': 60 });
  const { exitCode, log } = await runWorkers('slow', config as RunConfig, 2, { slow: 1, ms: 15 });
  expect(exitCode, log).toBe(0);
  const [, ms, usual] =
    /rank 1 is \d+ % slower at its own work .*\(([\d.]+) ms an update, ([\d.]+) ms\)/.exec(log) ?? [];
  expect(Number(ms) - Number(usual), log).toBeGreaterThan(10);
  expect(log).not.toContain('rank 0 is');
});

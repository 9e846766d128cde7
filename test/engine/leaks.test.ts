import { afterEach, beforeEach, expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { runWorkers } from '../helpers/run-workers.js';

interface Held {
  type: 'held';
  rank: number;
  counts: Record<string, number>[];
  losses: number[];
  /** While one model lives. */
  events: number;
}

const ROUNDS = process.env['MBRIDGE_TEST_FULL'] ? 201 : 21;

beforeEach(() => {
  process.env['MBRIDGE_TEST_ROUNDS'] = `${ROUNDS}`;
});
afterEach(() => {
  delete process.env['MBRIDGE_TEST_ROUNDS'];
});

test(
  'a job that builds and disposes of model after model holds no more than after the first',
  { timeout: ROUNDS * 10_000 },
  async () => {
    const config = qwen3TinyPretrainConfig({ seq_length: 64, train_iters: 1, global_batch_size: 4 });
    const { exitCode, events, log } = await runWorkers('leaks', config, 2);
    expect(exitCode, log).toBe(0);
    const ranks = events as Held[];
    expect(ranks).toHaveLength(2);
    for (const { counts, losses, events: living } of ranks) {
      expect(counts).toHaveLength(ROUNDS / 3);
      const [first] = counts;
      // The record of a rank's last collectives is shared with the launcher.
      expect(first).toMatchObject({ devices: 1, arenas: 0, comms: 0, events: 0, shared: 1 });
      for (const later of counts) expect(later).toEqual(first);
      // Training again and again on one model takes nothing more either, and goes on where it was.
      expect(losses).toHaveLength(20);
      expect(losses.at(-1)).toBeLessThan(losses[0]!);
      expect(living).toBeLessThan(40);
    }
  },
);

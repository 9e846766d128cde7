import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../../recipes/qwen3.js';
import { runWorkers } from '../../helpers/run-workers.js';

interface Watched {
  type: 'watched';
  rank: number;
  found: string;
  after: string;
  watches: number;
}

test('each runtime of a process is watched by itself, and a failure is not one of what comes after', async () => {
  const { exitCode, events, log } = await runWorkers('watches', qwen3TinyPretrainConfig(), 2);
  expect(exitCode, log).toBe(0);
  const ranks = events as Watched[];
  expect(ranks).toHaveLength(2);
  for (const { found, after, watches } of ranks) {
    expect(found).toMatch(/failing/);
    expect(after).toBe('own error');
    expect(watches).toBe(2);
  }
});

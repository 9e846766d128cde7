import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { runWorkers } from '../helpers/run-workers.js';

interface Replaced {
  type: 'replaced';
  rank: number;
  first: (number | null)[];
  second: (number | null)[];
  closed: number[];
  freed: number[];
}

test('a model makes room for another: no rank frees memory that others can still reach', async () => {
  const config = qwen3TinyPretrainConfig({ tensor_model_parallel_size: 2, seq_length: 64 });
  const { exitCode, events, log } = await runWorkers('replace-model', config, 4);
  expect(exitCode, log).toBe(0);
  const ranks = events as Replaced[];
  expect(ranks).toHaveLength(4);
  for (const { first, second, closed, freed } of ranks) {
    expect(second).toEqual(first);
    // The arenas of the state and of the rest, in the groups of tp and of dp.
    expect(closed).toHaveLength(4);
    expect(freed).toHaveLength(2);
  }
  expect(ranks.some(({ first }) => first.every((loss) => loss !== null))).toBe(true);
  // Rank 3 is late; 2 shares a tensor-parallel group with it, 1 a data-parallel one.
  const late = Math.min(...ranks.find(({ rank }) => rank === 3)!.closed);
  for (const { rank, freed } of ranks) if (rank === 1 || rank === 2) expect(freed[0]).toBeGreaterThan(late);
});

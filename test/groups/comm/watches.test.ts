import { expect, test } from 'vitest';
import { runRanks } from '../../../src/testing/run-ranks.js';

interface Watched {
  found: string;
  after: string;
  watches: number;
}

test('each runtime of a process is watched by itself, and a failure is not one of what comes after', async () => {
  const ranks = await runRanks<Watched>(2, new URL('../../workers/watches.mjs', import.meta.url));
  for (const { found, after, watches } of ranks) {
    expect(found).toMatch(/failing/);
    expect(after).toBe('own error');
    expect(watches).toBe(2);
  }
});

import { expect, test } from 'vitest';
import { runRanks } from '../../../src/testing/run-ranks.js';

interface Exchanged {
  rank: number;
  sent: number[];
  equal: number[];
  unequal: number[];
  single: number[];
  previous: number;
  received: number[];
}

const SIZE = 3;

test('every rank gets what every other sends it, in equal and unequal parts, and thousands of transfers at once', async () => {
  const ranks = await runRanks<Exchanged>(SIZE, new URL('../../workers/exchanges.mjs', import.meta.url));
  for (const { rank, equal, unequal, sent, single, previous, received } of ranks) {
    const piece = 6;
    expect(equal).toEqual(ranks.flatMap(({ sent: theirs }) => theirs.slice(rank * piece, (rank + 1) * piece)));
    const expected = new Array<number>(SIZE * piece).fill(-1);
    const from = [0, 1, 3][rank]!;
    ranks.forEach(({ sent: theirs }, r) => {
      const at = (SIZE - 1 - r) * (rank + 2);
      theirs.slice(from, from + rank + 1).forEach((value, i) => (expected[at + i] = value));
    });
    expect(unequal).toEqual(expected);
    expect(single).toEqual(sent);
    expect(received).toEqual(new Array(1000).fill(previous));
  }
});

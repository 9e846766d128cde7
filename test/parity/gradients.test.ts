import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FAMILY_FIXTURES, FIXTURES, loadFixture, relativeError, type Fixture } from '../helpers/fixture.js';
import { dumpOf } from './dump.js';
import { label, type Layout } from './run-fixture.js';

const LAYOUTS: Layout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 1, pp: 2, dp: 1 },
  { tp: 2, pp: 2, dp: 2 },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 1, cp: 4, pp: 1, dp: 1 },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
  { tp: 1, cp: 2, pp: 1, dp: 2, set: ['model.recompute_granularity="selective"'] },
  { tp: 1, cp: 4, pp: 1, dp: 1, set: ['model.cp_comm_type="p2p"'] },
];

/** In CI, of all fixtures but the first: what differs for them. The whole of it in `npm run test:full`. */
const FEWER = [LAYOUTS[1]!, LAYOUTS[4]!, LAYOUTS[5]!];
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

interface Sample {
  input_ids: number[];
  loss_mask?: number[];
  document_starts?: number[];
}

function countedTokens(fixture: Fixture): number {
  const lines = readFileSync(fixture.tokens, 'utf8').trim().split('\n').slice(0, fixture.trajectory.batch);
  const samples = lines.map((line) => JSON.parse(line) as Sample);
  return samples.reduce((sum, { input_ids: ids, loss_mask: mask, document_starts: starts = [0] }) => {
    return sum + (mask?.slice(1).reduce((a, b) => a + b, 0) ?? ids.length - starts.length);
  }, 0);
}

describe.each([...FIXTURES, ...FAMILY_FIXTURES])('%s', (name) => {
  const fixture = loadFixture(name);
  const layouts = (full || name === 'qwen3-tied' ? LAYOUTS : FEWER).filter(
    ({ tp }) => fixture.shape.numKvHeads % tp === 0,
  );
  test.each(layouts.map((layout) => ({ name: label(layout), layout })))(
    'logits and every gradient are those of torch on $name',
    async ({ layout }) => {
      const expected = await fixture.expected();
      const { grads, logits } = await dumpOf(fixture, layout);
      const tokens = countedTokens(fixture);
      expect(relativeError(logits, expected.logits)).toBeLessThan(1e-5);
      expect([...grads.keys()].sort()).toEqual([...expected.grads.keys()].sort());
      for (const [parameter, reference] of expected.grads) {
        const mean = grads.get(parameter)!.map((value) => value / tokens);
        expect(relativeError(mean, reference), parameter).toBeLessThan(1e-5);
      }
    },
  );
});

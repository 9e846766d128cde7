import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadFixture, type FixtureName } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { layoutConfig, ranksOf } from './run-fixture.js';

interface Row {
  readonly tokens: number[];
  readonly logprobs: number[];
}

/** Greedy continuations by transformers (test/oracles/generate.py). */
const expected = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../fixtures/generation/expected.json'), 'utf8'),
) as {
  readonly prompts: number[][];
  readonly fixtures: Readonly<Partial<Record<FixtureName, Row[]>>>;
};

const SINGLE = { tp: 1, pp: 1, dp: 1 };
const full = process.env['MBRIDGE_TEST_FULL'] !== undefined;

test.each([
  ...(Object.keys(expected.fixtures) as FixtureName[])
    .filter((name) => full || !name.includes('tied'))
    .map((name) => ({ name, on: 'one rank', layout: SINGLE })),
  { name: 'qwen3-tied' as const, on: 'tp 2', layout: { tp: 2, pp: 1, dp: 1 } },
  ...(full ? [{ name: 'qwen3-untied' as const, on: 'tp 2, pp 2', layout: { tp: 2, pp: 2, dp: 1 } }] : []),
])('the 256 most probable tokens of $name on $on are those of transformers', async ({ name, layout }) => {
  const { prompts, fixtures } = expected;
  const generation = { slots: 2, context: 304 };
  const options = { generation, prompts, maxTokens: 256, temperature: 0, onlyGenerates: true };
  const { exitCode, events, log } = await runWorkers(
    'generate',
    layoutConfig(loadFixture(name), layout, {}),
    ranksOf(layout),
    options,
  );
  expect(exitCode, log).toBe(0);
  const { rows } = events.find(({ type }) => type === 'generated') as unknown as { rows: Row[] };
  fixtures[name]?.forEach(({ tokens, logprobs }, i) => {
    expect(rows[i]!.tokens).toEqual(tokens);
    const worst = Math.max(...logprobs.map((logprob, j) => Math.abs(logprob - rows[i]!.logprobs[j]!)));
    expect(worst).toBeLessThan(2e-5);
  });
});

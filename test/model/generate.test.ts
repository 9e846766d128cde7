import { describe, expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import type { RunConfig } from '../../src/config/schema.js';
import { runWorkers } from '../helpers/run-workers.js';

interface Row {
  readonly row: number;
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly stop: string;
}

interface Generated {
  readonly type: 'generated';
  readonly rows: Row[];
  readonly streamed: { row: number; token: number; logprob: number }[];
  readonly differing: number;
  readonly compared: number;
  readonly cache: number;
}

interface Layout {
  readonly tp?: number;
  readonly pp?: number;
  readonly vp?: number;
  readonly dp?: number;
}

const SEQ = 64;
const FULL = process.env['MBRIDGE_TEST_FULL'] !== undefined;

function configOf({ tp = 1, pp = 1, vp = 1 }: Layout, rows: number): RunConfig {
  return qwen3TinyPretrainConfig({
    ...{ train_iters: 1, seq_length: SEQ, micro_batch_size: 4, global_batch_size: rows, initializer_range: 0.1 },
    ...{ tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp },
    ...(vp > 1 ? { virtual_pipeline_model_parallel_size: vp } : {}),
  });
}

/** Prompts of 1 to 5 tokens. */
function promptsOf(count: number): number[][] {
  return Array.from({ length: count }, (_, r) =>
    Array.from({ length: 1 + ((r * 7) % 5) }, (_, i) => (r * 31 + i * 17) % 256),
  );
}

async function generated(
  layout: Layout,
  options: Record<string, unknown>,
  prompts: number[][],
): Promise<{ rows: Row[]; events: Generated[] }> {
  const { tp = 1, pp = 1, dp = 1 } = layout;
  const given = { generation: { slots: 8, context: SEQ }, seed: 7, maxTokens: SEQ, ...options, prompts };
  const config = configOf(layout, Math.ceil(prompts.length / 16) * 16);
  const { exitCode, events, log } = await runWorkers('generate', config, tp * pp * dp, given);
  expect(exitCode, log).toBe(0);
  const found = events.filter(({ type }) => type === 'generated') as Generated[];
  return { rows: found.flatMap(({ rows }) => rows).sort((a, b) => a.row - b.row), events: found };
}

describe('the log-probability of a sampled token is that of the training forward, to the bit', () => {
  test.each([
    { name: 'tp 1', layout: {} },
    ...(FULL ? [{ name: 'tp 2', layout: { tp: 2 } }] : []),
    { name: 'tp 4', layout: { tp: 4 } },
  ])('on $name: 0 of 4096 tokens differ', async ({ layout }) => {
    const prompts = promptsOf(72);
    const { events } = await generated(layout, {}, prompts);
    expect(events[0]!.compared).toBeGreaterThanOrEqual(4096);
    expect(events[0]!.differing).toBe(0);
  });
});

describe('a token is a function of seed, row, position and model', () => {
  const prompts = promptsOf(12);
  const filters = { topK: 40, topP: 0.9, temperature: 0.8 };
  let known: ReturnType<typeof generated> | undefined;
  const reference = (): ReturnType<typeof generated> => (known ??= generated({}, filters, prompts));

  test.each<{ name: string; layout: Layout; options?: Record<string, unknown> }>([
    { name: 'one slot', layout: {}, options: { generation: { slots: 1, context: SEQ } } },
    {
      name: 'more slots and a longer cache',
      layout: {},
      options: { generation: { slots: 16, context: 96 }, maxTokens: 63 },
    },
    { name: 'a model that only generates', layout: {}, options: { onlyGenerates: true } },
    ...(FULL ? [{ name: 'pp 2', layout: { pp: 2 } }] : []),
    { name: 'interleaved stages', layout: { pp: 2, vp: 2 } },
    { name: 'dp 2', layout: { dp: 2 } },
  ])('$name changes none', async ({ layout, options }) => {
    const { rows } = await generated(layout, { ...filters, ...options }, prompts);
    const expected = (await reference()).rows;
    const cut = (row: Row, n: number) => ({
      row: row.row,
      tokens: row.tokens.slice(0, n),
      logprobs: row.logprobs.slice(0, n),
    });
    expect(rows).toHaveLength(prompts.length);
    rows.forEach((row, i) => {
      const n = Math.min(row.tokens.length, expected[i]!.tokens.length);
      expect(n).toBeGreaterThan(50);
      expect(cut(row, n)).toEqual(cut(expected[i]!, n));
    });
  });

  test('rows have the tokens that they have without their neighbours', async () => {
    const { rows } = await generated({}, { ...filters, firstRow: 5 }, [prompts[5]!]);
    expect(rows).toEqual([(await reference()).rows[5]]);
  });

  test('tokens are heard of as they come, and are those of the rows', async () => {
    const { rows, events } = await reference();
    for (const { row, tokens, logprobs } of rows) {
      const heard = events[0]!.streamed.filter((token) => token.row === row);
      expect(heard.map(({ token }) => token)).toEqual(tokens);
      expect(heard.map(({ logprob }) => logprob)).toEqual(logprobs);
    }
  });

  test('another seed and another row give other tokens, top-k 1 and temperature 0 the same ones', async () => {
    const same = [prompts[3]!, prompts[3]!];
    const tokensOf = async (options: Record<string, unknown>): Promise<number[][]> =>
      (await generated({}, { ...options, maxTokens: 40 }, same)).rows.map(({ tokens }) => tokens);
    const [first, second] = await tokensOf({ seed: 1 });
    const [other] = await tokensOf({ seed: 2 });
    expect(first).not.toEqual(second);
    expect(first).not.toEqual(other);
    const [greedy, twin] = await tokensOf({ temperature: 0 });
    expect(twin).toEqual(greedy);
    expect(await tokensOf({ topK: 1 })).toEqual([greedy, greedy]);
    expect(await tokensOf({ topP: 1e-6 })).toEqual([greedy, greedy]);
  });

  test('a stop token ends a row, the last of its tokens; the slot goes to the next prompt', async () => {
    const all = (await generated({}, {}, prompts)).rows;
    const stop = all[2]!.tokens[10]!;
    const { rows } = await generated({}, { stopTokens: [stop], generation: { slots: 2, context: SEQ } }, prompts);
    rows.forEach((row, i) => {
      const at = all[i]!.tokens.indexOf(stop);
      expect(row.tokens).toEqual(at < 0 ? all[i]!.tokens : all[i]!.tokens.slice(0, at + 1));
      expect(row.stop).toBe(at < 0 ? all[i]!.stop : 'stop');
    });
    expect(rows[2]!.stop).toBe('stop');
  });

  test('rows end with the context', async () => {
    const { rows } = await reference();
    for (const { row, tokens, stop } of rows) {
      const room = SEQ - prompts[row]!.length + 1;
      expect(tokens).toHaveLength(Math.min(SEQ, room));
      expect(stop).toBe(room < SEQ ? 'context' : 'length');
    }
  });
});

test('the cache is in the plan to the byte', async () => {
  const { events } = await generated({ tp: 2 }, { maxTokens: 2 }, promptsOf(2));
  // 4 layers, 4 heads of keys and values of width 32, float32
  expect(events[0]!.cache).toBe(2 * 4 * (4 / 2) * 32 * 4 * 8 * SEQ);
});

test.each(
  [
    { name: 'an empty prompt', prompts: [[]], options: {}, code: 'MB_GENERATE_PROMPT' },
    { name: 'a token of no vocabulary', prompts: [[256]], options: {}, code: 'MB_GENERATE_PROMPT' },
    { name: 'top-p out of range', prompts: [[1]], options: { topP: 1.5 }, code: 'MB_GENERATE_OPTIONS' },
    { name: 'a negative temperature', prompts: [[1]], options: { temperature: -1 }, code: 'MB_GENERATE_OPTIONS' },
    {
      name: 'a prompt longer than the context',
      prompts: [new Array<number>(SEQ + 1).fill(1)],
      options: {},
      code: 'MB_GENERATE_PROMPT',
    },
  ].slice(FULL ? 0 : -1),
)('$name is refused', async ({ prompts, options, code }) => {
  const given = { generation: { slots: 2, context: SEQ }, maxTokens: 4, prompts, ...options };
  const { exitCode, log } = await runWorkers('generate', configOf({}, 8), 1, given);
  expect(exitCode).toBe(3);
  expect(log).toContain(code);
});

import { expect, test } from 'vitest';
import { mbridge } from '../cli/mbridge.js';
import { loadFixture } from '../helpers/fixture.js';
import { fixtureConfig, label, trainSteps, type Layout } from './run-fixture.js';

const fixture = loadFixture('qwen3-tied');
const config = fixtureConfig(fixture);
config['train'] = { ...(config['train'] as object), train_iters: 3, exit_interval: 3 };

const MODULES = ['norm', 'rope', 'swiglu', 'attention', 'mlp'];
const CHOICES = [...MODULES.map((module) => [module]), ['rope', 'attention'], MODULES];
const select = (modules: readonly string[]): string[] => [
  'model.recompute_granularity=selective',
  `model.recompute_modules=[${modules.join(',')}]`,
];

test.each<Layout & { choices: string[][] }>([
  { tp: 1, cp: 1, pp: 1, dp: 1, choices: CHOICES },
  { tp: 2, cp: 1, pp: 2, dp: 1, choices: [MODULES] },
  { tp: 1, cp: 2, pp: 1, dp: 1, choices: [['attention'], MODULES] },
])(
  'what backward makes again has the bits that forward had: tp $tp, cp $cp, pp $pp',
  async ({ choices, ...layout }) => {
    const numbers = async (set: readonly string[]): Promise<unknown> =>
      (await trainSteps(config, { ...layout, set })).map(({ loss, grad_norm }) => ({ loss, grad_norm }));
    const kept = await numbers([]);
    for (const modules of choices) expect(await numbers(select(modules)), `${label(layout)} ${modules}`).toEqual(kept);
  },
  60_000,
);

test('the plan counts what is dropped', async () => {
  const bytes = async (...args: string[]): Promise<number> => {
    const model = ['plan', 'qwen3-8b', '--nproc', '1', '--device', 'cuda', '--json'];
    const { stdout } = await mbridge([...model, ...args]);
    const { ranks } = JSON.parse(stdout) as { ranks: { bytes: { activations: number } }[] };
    return (ranks[0] as (typeof ranks)[0]).bytes.activations;
  };
  // Of a token and layer, in elements of two bytes: of hidden 4096, 32 heads and 8 of keys and values of 128, ffn 12288;
  // the norm behind the layers is one more.
  const widths = { norm: (2 + 1 / 36) * 4096, rope: 6144, swiglu: 12288, attention: 4096 + 2 * 32, mlp: 3 * 12288 };
  const kept = await bytes();
  const [tokens, layers] = [4096, 36];
  for (const [module, width] of Object.entries(widths)) {
    const saved = kept - (await bytes(...select([module])));
    expect(saved / (2 * tokens * layers), module).toBeCloseTo(width, 0);
  }
});

test.each([
  [['model.recompute_modules=[mlp]'], 'is for recompute_granularity selective, not none'],
  [select(['mlp', 'mlp']), 'names a module twice'],
])('%j is refused', async (args, text) => {
  const { exitCode, stderr } = await mbridge(['show-config', 'qwen3-tiny', '--nproc', '1', ...args]);
  expect(exitCode).toBe(3);
  expect(stderr).toContain(text);
});

import { beforeAll, expect, test } from 'vitest';
import { runRanks } from '../../src/testing/run-ranks.js';

interface Case {
  readonly set?: Record<string, unknown>;
  readonly fp8: { readonly wgrad: boolean; readonly bf16Ends: number } | null;
  readonly updates: number;
  /** The update before which a weight becomes NaN. */
  readonly poison?: number;
}

interface Outcome {
  readonly steps: { readonly loss: number; readonly skipped: boolean }[];
  /** Of the last update's batches, before it and in it; null on a rank without the head. */
  readonly evaluated: unknown;
  readonly trained: unknown;
  /** Of the first update's batches, in it and by a model that is not trained. */
  readonly first: unknown;
  readonly untrained: unknown;
  readonly weights: string;
  readonly bytes: Record<string, number>;
  /** What e4m3 adds, as it is planned without a device, and as it is there. */
  readonly planned: Record<string, number>;
  readonly allocated: Record<string, number>;
}

const FP8 = { wgrad: true, bf16Ends: 0 };
const UPDATES = 20;

async function runs(ranks: number, cases: readonly Case[]): Promise<Outcome[]> {
  const module = new URL('../workers/fp8.mjs', import.meta.url);
  const outcomes = await runRanks<Outcome[]>(ranks, module, { options: cases, timeoutSeconds: 120 });
  return outcomes[0]!;
}

const lossesOf = ({ steps }: Outcome): number[] => steps.map(({ loss }) => loss);
/** All that has bits. */
const bitsOf = ({ steps, evaluated, weights }: Outcome): unknown => ({ steps, evaluated, weights });
const farthest = (a: Outcome, b: Outcome): number =>
  Math.max(...lossesOf(a).map((loss, i) => Math.abs(loss / lossesOf(b)[i]! - 1)));

let one: Outcome;
let exact: Outcome;

beforeAll(async () => {
  [one, exact] = (await runs(1, [
    { fp8: FP8, updates: UPDATES },
    { fp8: null, updates: UPDATES },
  ])) as [Outcome, Outcome];
}, 240_000);

test('a model learns with products of e4m3, and they are not those of float32', () => {
  const losses = lossesOf(one);
  expect(losses.at(-1)).toBeLessThan(losses[0]! - 1);
  expect(farthest(one, exact)).toBeGreaterThan(1e-5);
  expect(farthest(one, exact)).toBeLessThan(1e-2);
});

test('an evaluation between updates is of the weights that the next one begins with', () => {
  expect(one.evaluated).toEqual({ lossSum: expect.any(Number) as number, tokens: 1024 });
  expect(one.evaluated).toEqual(one.trained);
});

test('a model that is not trained has the same products', () => {
  expect(one.untrained).toEqual({ lossSum: expect.any(Number) as number, tokens: 1024 });
  expect(one.untrained).toEqual(one.first);
});

test.each<[string, number, Record<string, unknown>]>([
  ['tp 2', 2, { tensor_model_parallel_size: 2, sequence_parallel: false }],
  ['tp 2 and sequence parallel', 2, { tensor_model_parallel_size: 2 }],
  ['pp 2', 2, { pipeline_model_parallel_size: 2 }],
  [
    'pp 2 in two chunks',
    2,
    {
      pipeline_model_parallel_size: 2,
      virtual_pipeline_model_parallel_size: 2,
      num_hidden_layers: 4,
    },
  ],
  ['dp 2', 2, {}],
  ['dp 2, gradients sharded', 2, { ddp: { data_parallel_sharding_strategy: 'optim_grads' } }],
  ['cp 2', 2, { context_parallel_size: 2 }],
  ['a micro-batch of both samples', 1, { micro_batch_size: 2 }],
])(
  'the loss does not depend on the layout: %s',
  async (_, ranks, set) => {
    const layers = set['num_hidden_layers'];
    const updates = layers === undefined ? UPDATES : 6;
    const [found] = await runs(ranks, [{ set, fp8: FP8, updates }]);
    const [reference] =
      layers === undefined ? [one] : await runs(1, [{ set: { num_hidden_layers: layers }, fp8: FP8, updates }]);
    expect(farthest(found!, reference!)).toBeLessThan(2e-3);
    expect(found!.planned).toEqual(found!.allocated);
  },
  240_000,
);

test.each([true, false])(
  'what backward makes again has the bits that forward had, dW in e4m3: %s',
  async (wgrad) => {
    const selective = (modules: string[]): Record<string, unknown> => ({
      recompute_granularity: 'selective',
      recompute_modules: modules,
    });
    const choices = [
      {},
      { recompute_granularity: 'full' },
      selective(['norm', 'rope', 'swiglu']),
      selective(['mlp']),
      selective(['norm', 'rope', 'swiglu', 'attention', 'mlp']),
    ];
    const found = await runs(
      1,
      choices.map((set) => ({ set, fp8: { ...FP8, wgrad }, updates: 3 })),
    );
    for (const [i, outcome] of found.entries()) {
      expect(bitsOf(outcome), JSON.stringify(choices[i])).toEqual(bitsOf(found[0]!));
      expect(outcome.planned).toEqual(outcome.allocated);
    }
  },
  240_000,
);

test('layers that stay in bf16 have no e4m3, and all of them have the bits of a run without', async () => {
  const [none, ends, all, noWgrad, whole] = (await runs(1, [
    { fp8: null, updates: 3 },
    { set: { num_hidden_layers: 3 }, fp8: { wgrad: true, bf16Ends: 1 }, updates: 3 },
    { fp8: { wgrad: true, bf16Ends: 1 }, updates: 3 },
    { fp8: { wgrad: false, bf16Ends: 0 }, updates: 3 },
    { fp8: FP8, updates: 3 },
  ])) as [Outcome, Outcome, Outcome, Outcome, Outcome];
  expect(bitsOf(all)).toEqual(bitsOf(none));
  expect(all.bytes).toEqual(none.bytes);
  // q, k and v, o, gate and up, down; each a byte an element in both orientations, beside scales.
  const weights = 128 * (3 * 256 + 256 + 2 * 256 + 256);
  expect(ends.bytes['fp8']! / (2 * weights)).toBeCloseTo(1, 2);
  expect(whole.bytes['fp8']).toBe(2 * ends.bytes['fp8']!);
  expect(bitsOf(noWgrad)).not.toEqual(bitsOf(whole));
  expect(noWgrad.steps.at(-1)!.loss / whole.steps.at(-1)!.loss).toBeCloseTo(1, 2);
  // Of a layer, two norms' outputs and SwiGLU's are kept as a byte an element in place of four.
  const less = (none.bytes['activations']! - whole.bytes['activations']!) / 512 / 2;
  expect(less / (3 * (2 * 128 + 256))).toBeCloseTo(1, 1);
}, 240_000);

test('what is no number is in no scale: the update is skipped', async () => {
  const [{ steps }] = (await runs(1, [{ fp8: FP8, updates: 3, poison: 2 }])) as [Outcome];
  expect(steps.map(({ skipped }) => skipped)).toEqual([false, true, true]);
  expect(steps[1]!.loss).toBeNaN();
}, 60_000);

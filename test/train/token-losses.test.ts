import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { klEstimate } from '../../src/model/losses/policy-losses.js';
import { stageSpec } from '../../src/model/stage/stage-spec.js';
import { buildStage } from '../../src/model/stage/stage.js';
import { loadFixture, relativeError } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { label, layoutConfig, ranksOf, type Layout } from '../parity/run-fixture.js';

/** What torch made of the losses, by test/oracles/token-losses.py. */
interface Oracle {
  fields: Record<string, number[]>;
  score: number[];
  logprob: number[];
  entropy: number[];
  value: number[];
  losses: Record<string, { loss: number; divisor: number; grads: Record<string, number[]> }>;
}

interface Dump {
  dp: number;
  slices: {
    name: string;
    globalShape: number[];
    rows: { start: number; count: number };
    cols: { start: number; count: number };
    owner: boolean;
    values: number[];
  }[];
  tables: { logprob: number[]; entropy: number[]; value: number[] };
  totals: Record<string, number>;
  /** Whether other rows beside it, and other tokens after it, left every bit of a log-probability. */
  again: boolean;
  parameters: { name: string; values: number[] }[];
}

const fixture = loadFixture('qwen3-masked');
const { batch } = fixture.trajectory;
const oracle = JSON.parse(readFileSync(join(fixture.folder, 'token-losses.json'), 'utf8')) as Oracle;
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

const ALONE: Layout = { tp: 1, pp: 1, dp: 1 };
const LAYOUTS: Layout[] = [
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=true'] },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 1, pp: 2, dp: 1 },
  { tp: 1, pp: 1, dp: 2 },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 2, pp: 2, dp: 1 },
  { tp: 1, pp: 2, dp: 1, set: ['model.virtual_pipeline_model_parallel_size=2'] },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
];

interface Asked {
  loss: string;
  head?: 'value';
  microBatch?: number;
  weights?: boolean;
  trainable?: string;
  values?: Record<string, unknown>;
}

async function run(layout: Layout, { microBatch = 2, values, ...asked }: Asked): Promise<Dump[]> {
  const path = join(temporaryFolder(), 'fields.f32');
  writeFileSync(path, new Uint8Array(Float32Array.from(Object.values(oracle.fields).flat()).buffer));
  const config = layoutConfig(fixture, layout, {
    'train.micro_batch_size': microBatch,
    // Whole gradients on every replica.
    'ddp.data_parallel_sharding_strategy': 'no_shard',
    'optimizer.use_distributed_optimizer': false,
    ...values,
  });
  const options = { ...asked, fields: path };
  const { exitCode, log, runDir } = await runWorkers('tokens', config, ranksOf(layout), options);
  expect(exitCode, log).toBe(0);
  return Array.from(
    { length: ranksOf(layout) },
    (_, rank) => JSON.parse(readFileSync(join(runDir, `rank-${rank}.json`), 'utf8')) as Dump,
  );
}

/** The whole model's gradients, of one replica: they are reduced. */
function gradientsOf(dumps: readonly Dump[]): Map<string, Float64Array> {
  const whole = new Map<string, Float64Array>();
  for (const { name, globalShape, rows, cols, owner, values } of dumps.flatMap(({ slices }) => slices)) {
    if (!owner) continue;
    const width = globalShape.at(-1)!;
    const size = globalShape.reduce((a, b) => a * b, 1);
    const to = whole.get(name) ?? whole.set(name, new Float64Array(size)).get(name)!;
    for (let r = 0; r < rows.count; r++) {
      to.set(values.slice(r * cols.count, (r + 1) * cols.count), (rows.start + r) * width + cols.start);
    }
  }
  return whole;
}

/** Norm, and projections on four fixed vectors, as the oracle has them. */
function summary(gradient: Float64Array): number[] {
  const dot = (of: (i: number) => number): number => gradient.reduce((sum, g, i) => sum + g * of(i), 0);
  const norm = Math.sqrt(gradient.reduce((sum, g) => sum + g ** 2, 0));
  return [norm, ...[0, 1, 2, 3].map((k) => dot((i) => Math.cos((k + 1) * i + k)))];
}

function expectGradients(dumps: readonly Dump[], name: string): void {
  const { loss, divisor, grads } = oracle.losses[name]!;
  const { totals } = dumps[0]!;
  // Of the mean: terms of both signs cancel in the sum, whose own size says nothing of their errors.
  expect(Math.abs(totals['loss']! - loss) / divisor, `${name}: loss`).toBeLessThan(5e-6);
  expect(totals['tokens'], `${name}: divisor`).toBe(divisor);
  const found = gradientsOf(dumps);
  expect([...found.keys()].sort()).toEqual(Object.keys(grads).sort());
  for (const [parameter, expected] of Object.entries(grads)) {
    // An error of that norm, in no special direction, has projections of its size / sqrt 2 on these vectors.
    summary(found.get(parameter)!).forEach((value, i) => {
      expect(Math.abs(value - expected[i]!), `${name} ${parameter} ${i}`).toBeLessThan(5e-6 * expected[0]!);
    });
  }
}

describe('scores', () => {
  test('are those of transformers, and have the same bits over pp, dp and micro-batches, on every rank of a table', async () => {
    const alone = await run(ALONE, { loss: 'plain' });
    const { logprob, entropy } = alone[0]!.tables;
    expect(alone[0]!.again).toBe(true);
    const farthest = (a: readonly number[], b: readonly number[]): number =>
      Math.max(...a.map((x, i) => Math.abs(x - b[i]!)));
    expect(farthest(logprob, oracle.logprob)).toBeLessThan(5e-6);
    expect(farthest(entropy, oracle.entropy)).toBeLessThan(5e-6);
    const same: [Layout, number][] = [
      [ALONE, 1],
      [ALONE, batch],
      [{ tp: 1, pp: 2, dp: 2 }, 1],
    ];
    for (const [layout, microBatch] of same) {
      for (const { tables, again } of await run(layout, { loss: 'crossEntropy', microBatch })) {
        expect(tables.logprob, label(layout)).toEqual(logprob);
        expect(tables.entropy, label(layout)).toEqual(entropy);
        expect(again, label(layout)).toBe(true);
      }
    }
    for (const layout of [
      { tp: 2, pp: 1, dp: 1 },
      { tp: 1, cp: 2, pp: 1, dp: 1 },
    ]) {
      for (const { tables, again } of await run(layout, { loss: 'plain' })) {
        expect(farthest(tables.logprob, oracle.logprob), label(layout)).toBeLessThan(5e-6);
        expect(again, label(layout)).toBe(true);
      }
    }
  });
});

describe('a loss of tokens', () => {
  test('that is cross entropy has its bits', async () => {
    const [plain, built] = [await run(ALONE, { loss: 'plain' }), await run(ALONE, { loss: 'crossEntropy' })];
    expect(plain[0]!.slices).toEqual(built[0]!.slices);
    expect(relativeError([plain[0]!.totals['loss']!], [built[0]!.totals['loss']!])).toBeLessThan(1e-6);
  });

  const losses = ['plain', 'ppo', 'k3', 'entropy', 'gspo', 'dpo'];
  const table = full
    ? [ALONE, ...LAYOUTS].flatMap((layout) => losses.map((loss) => [label(layout), loss, layout] as const))
    : losses.map((loss, i) => [label(LAYOUTS[i]!), loss, LAYOUTS[i]!] as const);
  test.each(table)("has the gradient of torch's autograd on %s: %s", async (_, loss, layout) => {
    expectGradients(await run(layout, { loss }), loss);
  });
});

test('a field that is not there is named', async () => {
  const config = layoutConfig(fixture, ALONE, { 'train.micro_batch_size': 2 });
  const { exitCode, log } = await runWorkers('tokens', config, 1, { loss: 'ppo', without: 'old_logprob' });
  expect(exitCode).toBe(3);
  expect(log).toContain('ppo: the field old_logprob of a micro-batch is not there [MB_BATCH]');
});

describe('a value model', () => {
  const layouts = full ? [ALONE, ...LAYOUTS] : [ALONE, LAYOUTS[5]!, LAYOUTS[4]!];
  test.each(layouts.map((layout) => [label(layout), layout] as const))(
    'has the values and gradients of torch on %s',
    async (_, layout) => {
      const dumps = await run(layout, { loss: 'value', head: 'value', weights: true });
      const score = dumps.flatMap(({ parameters }) => parameters).find(({ name }) => name === 'score.weight');
      expect(score!.values).toEqual(oracle.score);
      expect(relativeError(dumps.at(-1)!.tables.value, oracle.value)).toBeLessThan(5e-6);
      expectGradients(dumps, 'value');
    },
  );

  test('whose row alone is trained has the gradient of that alone', async () => {
    const dumps = await run(LAYOUTS[5]!, { loss: 'value', head: 'value', trainable: '^value$' });
    const found = gradientsOf(dumps);
    expect([...found.keys()]).toEqual(['score.weight']);
    const expected = oracle.losses['value']!.grads['score.weight']!;
    expect(relativeError(summary(found.get('score.weight')!), expected)).toBeLessThan(5e-6);
  });

  test.each([
    ['qwen3-untied', 1],
    ['qwen3-masked', 2],
  ] as const)('of %s takes the memory of one row in place of a vocabulary, on pp %i', (name, pp) => {
    const { shape, ...rest } = loadFixture(name);
    const config = layoutConfig({ shape, ...rest }, { tp: 1, pp, dp: 1 }, {});
    const one = { size: 1, rank: 0 };
    const place = { tp: one, cp: one, dp: one, dpCp: one, pp: { size: pp, rank: pp - 1 } };
    const bytes = (head: 'language' | 'value') =>
      buildStage(stageSpec(config, place, { device: 'cpu', head }), null).plan.byRegion();
    const [language, value] = [bytes('language'), bytes('value')];
    const saved = (shape.vocabSize - 1) * shape.hiddenSize * 4;
    // Up to the padding of a bucket.
    expect(Math.abs(language.parameters - value.parameters - saved)).toBeLessThan(512);
    expect(Math.abs(language.gradients - value.gradients - saved)).toBeLessThan(512);
    expect(Math.abs(language.optimizer - value.optimizer - 2 * saved)).toBeLessThan(1024);
  });
});

test.each(['k1', 'k2', 'k3'] as const)('%s has the derivative of its estimate', (kind) => {
  for (const [logprob, reference] of [
    [-1, -1],
    [-2.5, -0.3],
    [-0.2, -3],
  ] as const) {
    const h = 1e-5;
    const slope = (klEstimate(kind, logprob + h, reference).kl - klEstimate(kind, logprob - h, reference).kl) / (2 * h);
    expect(klEstimate(kind, logprob, reference).derivative).toBeCloseTo(slope, 6);
  }
  expect(klEstimate(kind, -1.5, -1.5).kl).toBeCloseTo(0, 12);
});

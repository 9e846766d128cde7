import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { klEstimate } from '../../src/model/losses/policy-losses.js';
import { stageSpec } from '../../src/model/stage/stage-spec.js';
import { buildStage } from '../../src/model/stage/stage.js';
import { loadFixture, relativeError } from '../helpers/fixture.js';
import { expectGradients, gradientsOf, summary, type BackwardDump, type LossOracle } from '../helpers/gradients.js';
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
  losses: Record<string, LossOracle>;
}

interface Dump extends BackwardDump {
  dp: number;
  tables: { logprob: number[]; entropy: number[]; value: number[] };
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
      [{ tp: 1, pp: 2, dp: 2, set: ['model.loss_chunk_tokens=5'] }, 1],
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
    expectGradients(await run(layout, { loss }), loss, oracle.losses[loss]!);
  });
});

test('a field that is not there is named', async () => {
  const config = layoutConfig(fixture, ALONE, { 'train.micro_batch_size': 2 });
  const { exitCode, log } = await runWorkers('tokens', config, 1, { loss: 'ppo', without: 'old_logprob' });
  expect(exitCode).toBe(3);
  expect(log).toContain('error MB_BATCH: rank 0: ppo: the field old_logprob of a micro-batch is not there');
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
      expectGradients(dumps, 'value', oracle.losses['value']!);
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

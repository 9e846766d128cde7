import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { MicroBatch } from '../../src/data/micro-batch.js';
import { resolveConfig } from '../../src/config/resolve.js';
import type { Loss } from '../../src/model/blocks/loss.js';
import { crossEntropy } from '../../src/model/losses/cross-entropy.js';
import { distillationLoss } from '../../src/model/losses/distillation-loss.js';
import { FullDistillationLoss } from '../../src/model/losses/full-distillation-loss.js';
import { stageSpec } from '../../src/model/stage/stage-spec.js';
import { buildStage } from '../../src/model/stage/stage.js';
import { loadFixture } from '../helpers/fixture.js';
import { expectGradients, type BackwardDump, type LossOracle } from '../helpers/gradients.js';
import { runWorkers } from '../helpers/run-workers.js';
import { label, layoutConfig, ranksOf, type Layout } from '../parity/run-fixture.js';

type Top = Record<string, { ids: number[]; logprobs: number[] }>;

/** What torch made of a teacher and of distillation from it, by test/oracles/distillation.py. */
interface Oracle {
  k: number;
  top: Top;
  losses: Record<string, LossOracle>;
}

interface Dump {
  top: Top;
  /** Of the targets that are among the k: how many, and how many log-probabilities have not the bits of `logprobs`. */
  targets: { among: number; differ: number } | null;
  dumps: Record<string, BackwardDump>;
}

const fixture = loadFixture('qwen3-masked');
const folder = join(import.meta.dirname, '../../fixtures/distillation');
const oracle = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Oracle;
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

const LOSSES = {
  top_k: { temperature: 1, normalize: 'top_k' },
  top_k_2: { temperature: 2, normalize: 'top_k' },
  vocabulary: { temperature: 1, normalize: 'vocabulary' },
  vocabulary_2: { temperature: 2, normalize: 'vocabulary' },
  full: { temperature: 1 },
  full_2: { temperature: 2 },
};

const LAYOUTS: Layout[] = [
  { tp: 2, pp: 2, dp: 1, set: ['model.sequence_parallel=true'] },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 1, pp: 1, dp: 1 },
  { tp: 1, pp: 1, dp: 2 },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=true'] },
  { tp: 1, pp: 2, dp: 1 },
  { tp: 1, pp: 2, dp: 1, set: ['model.virtual_pipeline_model_parallel_size=2'] },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
];

function teacherConfig(tp: number) {
  const { batch, seq } = fixture.trajectory;
  const config = {
    // It is read in parts.
    model: { hf_path: folder, seq_length: seq, tensor_model_parallel_size: tp, loss_chunk_tokens: 11 },
    train: { train_iters: 1, global_batch_size: batch, micro_batch_size: 2 },
    optimizer: { lr: 1e-3 },
    mixed_precision: 'fp32' as const,
    checkpoint: { pretrained_checkpoint: folder },
    dataset: { type: 'mock' as const, seed: 0 },
  };
  return resolveConfig({ recipe: { name: 'teacher', config } });
}

async function run(layout: Layout, options: object, tp: number): Promise<Dump[]> {
  const config = layoutConfig(fixture, layout, {
    'train.micro_batch_size': 2,
    // Whole gradients on every replica.
    'ddp.data_parallel_sharding_strategy': 'no_shard',
    'optimizer.use_distributed_optimizer': false,
  });
  const ranks = ranksOf(layout);
  const asked = { k: oracle.k, tp, teacher: teacherConfig(tp), ...options };
  const { exitCode, log, runDir } = await runWorkers('distill', config, ranks, asked);
  expect(exitCode, log).toBe(0);
  return Array.from(
    { length: ranks },
    (_, rank) => JSON.parse(readFileSync(join(runDir, `rank-${rank}.json`), 'utf8')) as Dump,
  );
}

function expectTop(found: Top): void {
  for (const [temperature, { ids, logprobs }] of Object.entries(oracle.top)) {
    expect(found[temperature]!.ids, `temperature ${temperature}`).toEqual(ids);
    const errors = found[temperature]!.logprobs.map((value, i) => Math.abs(value - logprobs[i]!));
    expect(Math.max(...errors)).toBeLessThan(5e-6);
  }
}

const table = LAYOUTS.slice(0, full ? undefined : 2).map((layout) => [label(layout), layout] as const);

test.each(table)("what a teacher says, and a student's gradients, are torch's on %s", async (_, layout) => {
  const ranks = ranksOf(layout);
  const tp = Math.min(ranks, 4);
  const dumps = await run(layout, { losses: LOSSES }, tp);
  for (const { top } of dumps) expectTop(top);
  const { targets } = dumps[0]!;
  expect(targets!.among).toBeGreaterThan(0);
  expect(targets!.differ).toBe(0);
  for (const name of Object.keys(LOSSES)) {
    expectGradients(
      dumps.map((dump) => dump.dumps[name]!),
      name,
      oracle.losses[name]!,
    );
  }
});

/** A planned last stage of the student, with what a loss plans in it. */
function planned(loss: Loss, head: 'language' | 'value' = 'language') {
  const one = { size: 1, rank: 0 };
  const place = { tp: one, cp: one, dp: one, dpCp: one, pp: one };
  const config = layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, { 'train.micro_batch_size': 2 });
  return buildStage(stageSpec(config, place, { device: 'cpu', head }), null, loss);
}

const { vocabSize } = fixture.shape;
const teacher = { hiddenSize: 32, vocabSize, tieWordEmbeddings: false };

test.each<[string, () => unknown, string]>([
  ['no k', () => planned(distillationLoss({ k: 0 })), 'distillation: k is 0'],
  ['half a k', () => planned(distillationLoss({ k: 1.5 })), 'distillation: k is 1.5'],
  ['a k above the vocabulary', () => planned(distillationLoss({ k: vocabSize + 1 })), `k is ${vocabSize + 1}`],
  ['no temperature', () => planned(distillationLoss({ k: 4, temperature: 0 })), 'temperature is 0'],
  ['no temperature of all', () => planned(new FullDistillationLoss({ teacher, temperature: 0 })), 'temperature is 0'],
  ['a value model', () => planned(distillationLoss({ k: 4 }), 'value'), 'a value model has no logits'],
  [
    'a value model of all',
    () => planned(new FullDistillationLoss({ teacher }), 'value'),
    'a value model has no logits',
  ],
  [
    'another vocabulary',
    () => planned(new FullDistillationLoss({ teacher: { ...teacher, vocabSize: 7 } })),
    `a teacher of 7 tokens and a student of ${vocabSize}`,
  ],
])('%s is refused while the model is planned', (_, plan, message) => {
  expect(plan).toThrow(message);
});

test('what a batch does not bring is named, and so is an output layer that was not brought', () => {
  const apply = (loss: Loss, batch: Record<string, unknown>): void => {
    const { env, totals } = planned(crossEntropy());
    const of = (): never => expect.fail('no totals');
    const { tokens } = env.sizes;
    const logits = env.plan.tensor('workspace', [tokens, vocabSize], 'f32');
    const whole = { tokens: new Int32Array(tokens), ...batch } as unknown as MicroBatch;
    loss.plan(env, { lossAndTokens: totals.lossAndTokens, of }).apply(logits, () => logits, whole);
  };
  const [ids, logprobs] = [new Int32Array(2 * fixture.trajectory.seq * 4), new Float32Array(8)];
  const loss = distillationLoss({ k: 4 });
  expect(() => apply(loss, {})).toThrow('the field teacher_ids of a micro-batch is not there');
  expect(() => apply(loss, { teacher_ids: ids, teacher_logprobs: logprobs })).toThrow(
    'the field teacher_logprobs of a micro-batch is Float32Array of 8',
  );
  const enough = { teacher_ids: ids.fill(vocabSize), teacher_logprobs: new Float32Array(ids.length) };
  expect(() => apply(loss, enough)).toThrow(`teacher_ids has the token ${vocabSize}`);
  expect(() => apply(new FullDistillationLoss({ teacher }), {})).toThrow("the teacher's output layer is not here");
});

test('no buffer is larger than the logits: k numbers a token, and of all logits one buffer more, and the output layer', () => {
  const bytes = (loss: Loss): number => planned(loss).plan.totalBytes - planned(crossEntropy()).plan.totalBytes;
  const tokens = 2 * fixture.trajectory.seq;
  const padding = 10 * 256;
  // Ids, log-probabilities and logits of k tokens.
  expect(bytes(distillationLoss({ k: 64 }))).toBeLessThan(3 * 4 * 64 * tokens + padding + 4 * tokens);
  const all = 4 * (tokens * vocabSize + vocabSize * teacher.hiddenSize + tokens * teacher.hiddenSize + 4 * tokens);
  expect(bytes(new FullDistillationLoss({ teacher }))).toBeLessThan(all + padding);
});

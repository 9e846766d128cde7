import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { resolveConfig } from '../../src/config/resolve.js';
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
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 2, dp: 1, set: ['model.sequence_parallel=true'] },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
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
    model: { hf_path: folder, seq_length: seq, tensor_model_parallel_size: tp },
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

const table = LAYOUTS.slice(0, full ? undefined : 4).map((layout) => [label(layout), layout] as const);

test.each(table)("what a teacher says, and a student's gradients, are torch's on %s", async (_, layout) => {
  const ranks = ranksOf(layout);
  const tp = Math.min(ranks, 4);
  const dumps = await run(layout, { losses: LOSSES }, tp);
  for (const { top } of dumps) expectTop(top);
  for (const name of Object.keys(LOSSES)) {
    expectGradients(
      dumps.map((dump) => dump.dumps[name]!),
      name,
      oracle.losses[name]!,
    );
  }
});

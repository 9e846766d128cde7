import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadFixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { layoutConfig, ranksOf, type Layout } from '../parity/run-fixture.js';

interface Trained {
  type: 'trained';
  rank: number;
  losses: number[];
  changed: { name: string; changed: boolean }[];
  frozen: string[];
  gradients: number;
  optimizer: number;
  step: number;
}

interface Options {
  trainable: string | null;
  checkpoints: boolean;
  updates: number;
}

const fixture = loadFixture('qwen3-untied');

async function trained(layout: Layout, options: Options): Promise<Trained[]> {
  const config = layoutConfig(fixture, layout, { 'train.train_iters': options.updates });
  const { exitCode, events, log } = await runWorkers('frozen', config, ranksOf(layout), options);
  expect(exitCode, log).toBe(0);
  const found = events.filter(({ type }) => type === 'trained') as Trained[];
  return found.sort((a, b) => a.rank - b.rank);
}

test.each<Layout>([
  { tp: 1, pp: 1, dp: 2, set: ['ddp.data_parallel_sharding_strategy="optim_grads"'] },
  { tp: 2, pp: 2, dp: 1 },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
])('frozen buckets keep their bits, and take no memory for gradients and moments, on %o', async (layout) => {
  const frozen = ['embedding', 'layer.0', 'norms'];
  const options = { checkpoints: false, updates: 2 };
  const part = await trained(layout, { ...options, trainable: `^(?!(${frozen.join('|')})$)` });
  const all = await trained(layout, { ...options, trainable: null });
  for (const [i, { changed, frozen: found, gradients, optimizer }] of part.entries()) {
    expect(found.every((name) => frozen.includes(name))).toBe(true);
    for (const { name, changed: moved } of changed) {
      const kept = /embed_tokens|layers\.0\.(self_attn\.._proj|mlp)|layernorm|model\.norm/.test(name);
      expect(moved, name).toBe(!kept);
    }
    expect(gradients).toBeLessThan(all[i]!.gradients);
    expect(optimizer).toBeLessThan(all[i]!.optimizer);
  }
  expect(part.some(({ frozen: found }) => found.includes('layer.0'))).toBe(true);
  expect(all.every(({ frozen: found }) => found.length === 0)).toBe(true);
  expect(part[0]!.losses[0]).toBeCloseTo(all[0]!.losses[0]!, 5);
});

test('a model that is frozen in part is not saved', async () => {
  const save = { 'checkpoint.save': join(temporaryFolder(), 'save'), 'train.train_iters': 1 };
  const config = layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, save);
  const options = { trainable: '^(?!embedding$)', checkpoints: true, updates: 1 };
  const { exitCode, log } = await runWorkers('frozen', config, 1, options);
  expect(exitCode).toBe(3);
  expect(log).toContain('MB_CHECKPOINT_FROZEN');
});

test('a call of train for each update is one long training', async () => {
  const layout = { tp: 1, pp: 1, dp: 2 };
  const updates = fixture.trajectory.steps.length;
  const [first] = await trained(layout, { trainable: null, checkpoints: false, updates });
  expect(first!.step).toBe(updates);
  fixture.trajectory.steps.forEach(({ loss }, i) => expect(first!.losses[i]).toBeCloseTo(loss, 4));
});

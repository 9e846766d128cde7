import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { Checkpoint } from '../../src/checkpoint/format/checkpoint.js';
import { reshard } from '../../src/checkpoint/run/reshard.js';
import { namedBy } from '../../src/families/frozen.js';
import { modelParameters } from '../../src/families/parameters.js';
import { stageSpec } from '../../src/model/stage/stage-spec.js';
import { buildStage } from '../../src/model/stage/stage.js';
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
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

async function trained(layout: Layout, options: Options, values: Record<string, unknown> = {}): Promise<Trained[]> {
  const config = layoutConfig(fixture, layout, { 'train.train_iters': options.updates, ...values });
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

/** A layer with its norms, the embedding, and one kind of norm of every layer. */
const FROZEN = ['model.embed_tokens.weight', 'model.layers.0.*', '*.q_norm.weight'];
const isFrozen = namedBy(FROZEN);
const frozenParameters = modelParameters(fixture.shape).filter(({ name }) => isFrozen(name));

/** Of a planned stage that has the whole model. */
function planned(patterns: readonly string[], precision: 'fp32' | 'bf16_mixed'): Record<string, number> {
  const one = { size: 1, rank: 0 };
  const config = layoutConfig(
    fixture,
    { tp: 1, pp: 1, dp: 1 },
    { 'optimizer.frozen_parameters': patterns, mixed_precision: precision },
  );
  const place = { tp: one, cp: one, pp: one, dp: one, dpCp: one };
  return buildStage(stageSpec(config, place, { device: 'cuda' }), null).plan.byRegion();
}

test.each<['fp32' | 'bf16_mixed', number]>([
  ['fp32', 8],
  ['bf16_mixed', 12],
])('a frozen parameter has no gradient and no optimizer memory in the plan, %s', (precision, bytes) => {
  const [all, part] = [planned([], precision), planned(FROZEN, precision)];
  const elements = frozenParameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  // Up to the padding of buckets, of which there are some more.
  const padding = 64 * (2 * fixture.shape.numLayers + 4);
  expect(Math.abs(all['gradients']! - part['gradients']! - 4 * elements)).toBeLessThan(4 * padding);
  expect(Math.abs(all['optimizer']! - part['optimizer']! - bytes * elements)).toBeLessThan(bytes * padding);
});

test.each<Layout>([
  { tp: 2, pp: 2, dp: 1 },
  ...(full ? [{ tp: 1, pp: 1, dp: 2, set: ['ddp.data_parallel_sharding_strategy="optim_grads"'] }] : []),
])('parameters that are named keep their bits with weight decay, on %o', async (layout) => {
  const updates = full ? 100 : 10;
  const named = { 'optimizer.frozen_parameters': FROZEN, 'optimizer.weight_decay': 0.1 };
  const ranks = await trained(layout, { trainable: null, checkpoints: false, updates }, named);
  for (const { changed } of ranks) {
    for (const { name, changed: moved } of changed) expect(moved, name).toBe(!isFrozen(name));
  }
});

test('a model that is frozen in part is saved without moments of that, and goes on with the same bits', async () => {
  const folder = join(temporaryFolder(), 'save');
  const alone = { tp: 1, pp: 1, dp: 1 };
  const named = { 'optimizer.frozen_parameters': FROZEN, 'scheduler.lr_decay_iters': 6 };
  const options = { trainable: null, checkpoints: true, updates: 6 };
  const whole = await trained(alone, { ...options, checkpoints: false }, named);
  // The plan is the allocation.
  const { gradients, optimizer } = planned(FROZEN, 'fp32');
  expect([whole[0]!.gradients, whole[0]!.optimizer]).toEqual([gradients, optimizer]);
  const first = await trained(alone, { ...options, updates: 3 }, { ...named, 'checkpoint.save': folder });
  const load = { 'checkpoint.load': folder };
  const second = await trained(alone, options, { ...named, ...load });
  expect([...first[0]!.losses, ...second[0]!.losses.slice(3)]).toEqual(whole[0]!.losses);

  const checkpoint = await Checkpoint.open(join(folder, 'step-00000003'));
  for (const { name } of modelParameters(fixture.shape)) {
    expect(checkpoint.has(name)).toBe(true);
    for (const kind of ['exp_avg', 'exp_avg_sq']) expect(checkpoint.has(`${kind}.${name}`)).toBe(!isFrozen(name));
  }
  const cut = await Checkpoint.open(
    await reshard(checkpoint, join(dirname(folder), 'cut'), { tp: 2, pp: 2, dp: 1, vpp: 1 }),
  );
  await cut.verifyFiles();
  expect(Object.keys(cut.index.tensors).sort()).toEqual(Object.keys(checkpoint.index.tensors).sort());
  for (const each of [checkpoint, cut]) await each.close();

  const more = layoutConfig(fixture, alone, { ...load, 'train.train_iters': 6 });
  const { exitCode, log } = await runWorkers('frozen', more, 1, options);
  expect(exitCode).toBe(3);
  expect(log).toMatch(/error MB_CHECKPOINT_FROZEN: rank 0: .*model\.\S+ was frozen when it was saved$/m);

  const elsewhere = full ? await trained({ tp: 2, pp: 1, dp: 2 }, options, { ...named, ...load }) : [];
  for (const { losses, changed } of elsewhere) {
    losses.slice(3).forEach((loss, i) => expect(loss).toBeCloseTo(whole[0]!.losses[3 + i]!, 5));
    for (const { name, changed: moved } of changed) expect(moved, name).toBe(!isFrozen(name));
  }
});

test.each([
  [['model.layers.9.*'], "'model.layers.9.*' names no parameter of this model; they are named as model.embed_tokens"],
  [['model.norm'], "'model.norm' names no parameter"],
  [['*'], 'every parameter is frozen; leave one to be trained'],
  [['model.layers.1.self_attn.q_proj.*'], 'q_proj.weight is frozen and model.layers.1.self_attn.k_proj.weight is not'],
  [['model.layers.1.mlp.up_proj.weight'], 'they are one matrix here; name all of model.layers.1.mlp.gate_proj.weight'],
])('the patterns %j are refused', (patterns, message) => {
  const config = () => layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, { 'optimizer.frozen_parameters': patterns });
  expect(config).toThrow(message);
  expect(config).toThrow('optimizer.frozen_parameters');
});

test('a call of train for each update is one long training', async () => {
  const layout = { tp: 1, pp: 1, dp: 2 };
  const updates = fixture.trajectory.steps.length;
  const [first] = await trained(layout, { trainable: null, checkpoints: false, updates });
  expect(first!.step).toBe(updates);
  fixture.trajectory.steps.forEach(({ loss }, i) => expect(first!.losses[i]).toBeCloseTo(loss, 4));
});

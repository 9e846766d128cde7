import { join } from 'node:path';
import { expect, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/files/safetensors.js';
import { readSliceInto, sliceSize } from '../../src/checkpoint/files/safetensors-slice.js';
import { Checkpoint } from '../../src/checkpoint/format/checkpoint.js';
import { exportAdapter } from '../../src/checkpoint/hf/adapter-export.js';
import { exportHf } from '../../src/checkpoint/hf/hf-export.js';
import { configOfModel } from '../../src/checkpoint/run/model-config.js';
import { reshard } from '../../src/checkpoint/run/reshard.js';
import {
  adapterCount,
  adapterParameters,
  adaptersOf,
  adaptedWeights,
  adapterNames,
  isAdapterParameter,
} from '../../src/families/adapters.js';
import { modelParameters } from '../../src/families/parameters.js';
import { readPeftConfig } from '../../src/families/peft-config.js';
import { stageSpec } from '../../src/model/stage/stage-spec.js';
import { buildStage } from '../../src/model/stage/stage.js';
import { loadFixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { layoutConfig, ranksOf, type Layout } from '../parity/run-fixture.js';

const fixture = loadFixture('qwen2-tied');
const imported = join(import.meta.dirname, '../../fixtures/lora');
const layout = { tp: 2, pp: 1, dp: 1 };

interface Trained {
  readonly losses: number[];
  readonly changed: readonly { readonly name: string; readonly changed: boolean }[];
}

async function trained(updates: number, values: Record<string, unknown>, on: Layout = layout): Promise<Trained> {
  const config = layoutConfig(fixture, on, { 'train.train_iters': updates, 'scheduler.lr_decay_iters': 6, ...values });
  const options = { trainable: null, checkpoints: true, updates };
  const { exitCode, events, log } = await runWorkers('frozen', config, ranksOf(on), options);
  expect(exitCode, log).toBe(0);
  return events.find(({ type }) => type === 'trained') as unknown as Trained;
}

async function refusal(values: Record<string, unknown>): Promise<string> {
  const config = layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, { 'train.train_iters': 6, ...values });
  const options = { trainable: null, checkpoints: true, updates: 6 };
  const { exitCode, log } = await runWorkers('frozen', config, 1, options);
  expect(exitCode, log).toBe(7);
  return log;
}

test('a run of adapters goes on with the same bits, and its adapters and what they make of the model go out', async () => {
  const root = temporaryFolder();
  const [saves, merged, alone] = [join(root, 'saves'), join(root, 'merged'), join(root, 'adapter')];
  const peft = {
    'peft.type': 'lora',
    'peft.dim': 4,
    'peft.alpha': 6,
    'peft.target_modules': ['linear_qkv', 'down_proj'],
  };
  const whole = await trained(6, peft);
  const first = await trained(3, { ...peft, 'checkpoint.save': saves });
  const second = await trained(6, { ...peft, 'checkpoint.load': saves });
  expect([...first.losses, ...second.losses.slice(3)]).toEqual(whole.losses);
  for (const { name, changed } of whole.changed) expect(changed, name).toBe(isAdapterParameter(name));

  const folder = join(saves, 'step-00000003');
  const checkpoint = await Checkpoint.open(folder);
  const adapters = adaptersOf({ type: 'lora', dim: 4, alpha: 6, target_modules: ['linear_qkv', 'down_proj'] })!;
  expect(checkpoint.adapters).toEqual(adapters);
  const own = adapterParameters(fixture.shape, adapters).map(({ name }) => name);
  const all = [...modelParameters(fixture.shape).map(({ name }) => name), ...own];
  const moments = own.flatMap((name) => [`exp_avg.${name}`, `exp_avg_sq.${name}`]);
  expect(Object.keys(checkpoint.index.tensors).sort()).toEqual([...all, ...moments].sort());

  // As peft has it, out and in again.
  await exportAdapter(checkpoint, alone);
  expect(readPeftConfig(alone)).toEqual({ adapters, base: fixture.folder });
  const file = await SafetensorsFile.open(join(alone, 'adapter_model.safetensors'));
  expect([...file.tensors.keys()].sort()).toEqual(own.map((name) => `base_model.model.${name}`).sort());
  const again = await configOfModel(alone);
  expect(again).toMatchObject({ model: { hf_path: fixture.folder }, peft: { adapter: alone, dim: 4, alpha: 6 } });

  const { bytes } = await exportHf(checkpoint, merged);
  const weights = await SafetensorsFile.open(join(merged, 'model.safetensors'));
  expect(
    [...weights.tensors.values()].reduce((sum, { dtype, bytes: size }) => sum + (dtype === 'F32' ? size : 0), 0),
  ).toBe(bytes);
  const floats = async (from: SafetensorsFile, name: string): Promise<Float32Array> => {
    const values = new Float32Array(sliceSize(from.tensor(name), {}));
    await readSliceInto(from, name, {}, values);
    return values;
  };
  const base = await SafetensorsFile.open(join(fixture.folder, 'model.safetensors'));
  const adapted = new Map(adaptedWeights(fixture.shape, adapters).map(({ name, shape }) => [name, shape]));
  for (const { name } of modelParameters(fixture.shape)) {
    const [was, is] = [await floats(base, name), await floats(weights, name)];
    const shape = adapted.get(name);
    if (shape === undefined) expect(is, name).toEqual(was);
    else {
      const names = adapterNames(name);
      const [a, b] = [
        await floats(file, `base_model.model.${names.a}`),
        await floats(file, `base_model.model.${names.b}`),
      ];
      const [rows, cols] = shape;
      for (let i = 0; i < rows * cols; i++) {
        const [row, col] = [Math.floor(i / cols), i % cols];
        const sum = [0, 1, 2, 3].reduce((so, k) => so + b[row * 4 + k]! * a[k * cols + col]!, 0);
        expect(Math.abs(was[i]! + 1.5 * sum - is[i]!)).toBeLessThan(1e-7);
      }
      expect(is).not.toEqual(was);
    }
  }
  const cut = await Checkpoint.open(await reshard(checkpoint, join(root, 'cut'), { tp: 1, pp: 2, dp: 1, vpp: 1 }));
  await cut.verifyFiles();
  expect(Object.keys(cut.index.tensors).sort()).toEqual(Object.keys(checkpoint.index.tensors).sort());
  for (const each of [checkpoint, cut, file, weights, base]) await each.close();

  const transferred = layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, peft);
  const options = { saved: folder, merged, base: fixture.folder };
  const { exitCode, events, log } = await runWorkers('lora', transferred, 2, options);
  expect(exitCode, log).toBe(0);
  expect(events.filter(({ type }) => type === 'moved')).toHaveLength(4);
  for (const event of events as unknown as { type: string; before: number; after: number }[]) {
    if (event.type !== 'moved') continue;
    expect(event.before).toBeGreaterThan(0);
    expect(event.after, JSON.stringify(event)).toBe(0);
  }

  expect(await refusal({ 'checkpoint.load': saves })).toMatch(
    /MB_CHECKPOINT_ADAPTER: .*there are adapters there, and none /,
  );
  expect(await refusal({ ...peft, 'peft.alpha': 7, 'checkpoint.load': saves })).toContain('alpha is 6 there and 7 in');
});

test('an adapter that is another than the run has, or of another kind, is refused', async () => {
  const found = readPeftConfig(imported);
  expect(found).toMatchObject({ adapters: { rank: 16, alpha: 32 }, base: 'qwen2-tied' });
  expect(await refusal({ 'peft.adapter': imported, 'peft.dim': 8 })).toContain(
    'rank is 16 there and 8 in the configuration',
  );
  const other = loadFixture('llama-untied');
  const config = () => layoutConfig(fixture, layout, { 'peft.adapter': other.folder });
  expect(config).toThrow(/peft.adapter: cannot read .*adapter_config.json/);
  const named = { 'peft.type': 'lora', 'optimizer.frozen_parameters': ['model.norm.weight'] };
  expect(() => layoutConfig(fixture, layout, named)).toThrow('all but the adapters is frozen');
});

test.skipIf(process.env['MBRIDGE_TEST_FULL'] !== '1')(
  'what is frozen keeps its bits over 100 updates with weight decay',
  async () => {
    const values = { 'peft.type': 'lora', 'optimizer.weight_decay': 0.1, 'scheduler.lr_decay_iters': 100 };
    for (const on of [layout, { tp: 1, pp: 2, dp: 1 }]) {
      const { changed } = await trained(100, values, on);
      for (const { name, changed: moved } of changed) expect(moved, name).toBe(isAdapterParameter(name));
    }
  },
);

test.each(['fp32', 'bf16_mixed'] as const)('adapters alone have gradients and moments in the plan, %s', (precision) => {
  const one = { size: 1, rank: 0 };
  const place = { tp: one, cp: one, pp: one, dp: one, dpCp: one };
  const values = { 'peft.type': 'lora', 'peft.dim': 16, mixed_precision: precision };
  const config = layoutConfig(fixture, { tp: 1, pp: 1, dp: 1 }, values);
  const stage = buildStage(stageSpec(config, place, { device: 'cuda' }), null);
  const { gradients, optimizer } = stage.plan.byRegion();
  const elements = adapterCount(fixture.shape, adaptersOf(config.peft)!);
  // Each A and each B begins at a full line.
  const padding = 64 * 14 * fixture.shape.numLayers;
  expect(gradients - 4 * elements).toBeGreaterThanOrEqual(0);
  expect(gradients - 4 * elements).toBeLessThan(4 * padding);
  const bytes = precision === 'fp32' ? 8 : 12;
  expect(optimizer - bytes * elements).toBeLessThan(bytes * padding);
});

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/files/safetensors.js';
import { readSliceInto, sliceSize } from '../../src/checkpoint/files/safetensors-slice.js';
import { adapterParameters } from '../../src/families/adapters.js';
import { loadFixture, relativeError } from '../helpers/fixture.js';
import { dumpOf } from './dump.js';
import { farthest, fixtureConfig, label, trainSteps, type Layout, type Step } from './run-fixture.js';

const fixture = loadFixture('qwen2-tied');
/** What peft made of an adapter of it: test/oracles/lora.py. */
const folder = join(import.meta.dirname, '../../fixtures/lora');
const { steps } = JSON.parse(readFileSync(join(folder, 'trajectory.json'), 'utf8')) as { steps: Step[] };
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

const LAYOUTS: Layout[] = [
  { tp: 1, pp: 1, dp: 1, set: ['model.recompute_granularity="full"'] },
  { tp: 2, pp: 2, dp: 1 },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 1, cp: 2, pp: 1, dp: 2 },
];
const MORE: Layout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 1, pp: 2, dp: 1, set: ['model.recompute_granularity="selective"'] },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
  { tp: 2, pp: 1, dp: 2, set: ['dist.peer_memory=false'] },
];

const cases = (of: Layout[]) => of.map((layout) => ({ name: label(layout), layout }));

test.each(cases(full ? [...LAYOUTS, ...MORE] : LAYOUTS))(
  'gradients of A and B are those of peft on $name, and nothing else has one',
  async ({ layout }) => {
    const file = await SafetensorsFile.open(join(folder, 'expected.safetensors'));
    const { grads } = await dumpOf(fixture, layout, { 'peft.adapter': folder });
    const adapters = {
      rank: 16,
      alpha: 32,
      modules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    };
    const names = adapterParameters(fixture.shape, adapters).map(({ name }) => name);
    expect([...grads.keys()].sort()).toEqual(names.sort());
    const tokens = fixture.trajectory.batch * fixture.trajectory.seq;
    for (const name of names) {
      const expected = new Float32Array(sliceSize(file.tensor(`grad.${name}`), {}));
      await readSliceInto(file, `grad.${name}`, {}, expected);
      const mean = grads.get(name)!.map((value) => value / tokens);
      expect(relativeError(mean, expected), name).toBeLessThan(5e-6);
    }
    await file.close();
  },
);

const SHARDED = 'ddp.data_parallel_sharding_strategy="optim_grads"';
const SMALL: Layout[] = [{ tp: 2, pp: 1, dp: 2, set: ['dist.check_placement=true', SHARDED] }];

test.each(cases(full ? [...SMALL, ...LAYOUTS, ...MORE] : SMALL))(
  'updates are those of peft on $name',
  async ({ layout }) => {
    const base = fixtureConfig(fixture);
    const train = { ...(base['train'] as object), train_iters: steps.length };
    // Of a command line, not JSON.
    const set = layout.set?.map((text) => text.replaceAll('"', ''));
    const found = await trainSteps({ ...base, train, peft: { adapter: folder } }, { ...layout, ...(set && { set }) });
    expect(farthest(found, steps, 'loss')).toBeLessThan(2e-5);
    expect(farthest(found, steps, 'grad_norm')).toBeLessThan(2e-4);
    expect(farthest(found, steps, 'lr')).toBeLessThan(1e-6);
  },
);

import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { describeState, differences } from '../../src/checkpoint/format/state-record.js';
import type { RunConfig } from '../../src/config/schema.js';
import { openDevice } from '../../src/engine/open-device.js';
import { STATE } from '../../src/engine/ops.js';

test('the state says on which layout it was saved, and another layout is told by name', () => {
  const device = openDevice('cpu', 0, 1);
  const cfg = qwen3TinyPretrainConfig();
  const layout = { worldSize: 24, tp: 2, cp: 1, dp: 4, pp: 3, vpp: 5, ep: 6, microBatches: 1 };
  const scalars = new Float64Array(STATE.length);
  scalars[STATE.step] = 7;
  const state = describeState(
    { cfg, layout, device },
    { step: 8, consumedSamples: 64, scalars, lineage: 'a', data: null },
  );
  expect(state).toMatchObject({ step: 8, consumed_samples: 64, optimizer: { updates: 7 } });
  expect(state.layout).toEqual({ world_size: 24, tp: 2, cp: 1, dp: 4, pp: 3, vpp: 5, ep: 6 });
  expect(differences(state, { cfg, layout, device })).toEqual([]);
  const other = { ...layout, tp: 3, pp: 2 };
  expect(differences(state, { cfg, layout: other, device })).toEqual(['tp was 2, is 3', 'pp was 3, is 2']);
  // A key that is newer than the checkpoint had its default.
  const optimizer: Partial<RunConfig['optimizer']> = { ...cfg.optimizer };
  delete optimizer.exp_avg_dtype;
  const older = { ...state, config: { ...cfg, optimizer } as RunConfig };
  expect(differences(older, { cfg, layout, device })).toEqual([]);
  const small = { ...cfg, optimizer: { ...cfg.optimizer, exp_avg_dtype: 'bf16' as const } };
  const said = 'optimizer.exp_avg_dtype was "fp32", is "bf16"';
  expect(differences(older, { cfg: small, layout, device })).toEqual([said]);
  const products = { ...cfg, mixed_precision: 'fp8_mixed' as const, model: { ...cfg.model, fp8_wgrad: false } };
  expect(differences(state, { cfg: products, layout, device })).toEqual([
    'precision was fp32, is fp8_mixed',
    'model.fp8_wgrad was true, is false',
  ]);
  device.close();
});

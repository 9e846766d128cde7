import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { describeState, differences } from '../../src/checkpoint/format/state-record.js';
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
  device.close();
});

import { expect, test } from 'vitest';
import { deviceIndexOf, prepareSharedGpu } from '../../src/worker/shared-gpu.js';

test.each([
  [1, [0, 1, 2, 3]],
  [2, [0, 0, 1, 1]],
  [3, [0, 0, 0, 1]],
  [4, [0, 0, 0, 0]],
])('with %i ranks a GPU, four local ranks use GPUs %j', (ranksPerGpu, expected) => {
  expect([0, 1, 2, 3].map((rank) => deviceIndexOf(rank, ranksPerGpu))).toEqual(expected);
});

const SHARING = 'NCCL_MULTI_RANK_GPU_ENABLE';
const PART = 'CUDA_MPS_ACTIVE_THREAD_PERCENTAGE';

test.each<[number, Record<string, string>, Record<string, string>]>([
  [1, {}, {}],
  [2, {}, { [SHARING]: '1', [PART]: '50' }],
  [3, {}, { [SHARING]: '1', [PART]: '33' }],
  [200, {}, { [SHARING]: '1', [PART]: '1' }],
  [2, { [SHARING]: '0', [PART]: '80' }, { [SHARING]: '0', [PART]: '80' }],
])('%i ranks a GPU turn %j into %j', (ranksPerGpu, env, expected) => {
  prepareSharedGpu(ranksPerGpu, env);
  expect(env).toEqual(expected);
});

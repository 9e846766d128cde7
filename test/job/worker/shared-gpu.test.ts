import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { describeSharing, prepareSharedGpu } from '../../../src/job/worker/shared-gpu.js';

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

test('the log says whether the multi-process service is there', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-mps-'));
  onTestFinished(() => {
    rmSync(folder, { recursive: true });
  });
  const env = { CUDA_MPS_PIPE_DIRECTORY: folder };
  expect(describeSharing(2, env)).toMatch(/^2 ranks share each GPU in turns/);
  writeFileSync(join(folder, 'control'), '');
  expect(describeSharing(4, env)).toBe("4 ranks share each GPU at the same time, under CUDA's multi-process service");
});

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { deviceIndexOf, gpusFor, requireDevices, unusedGpus, visibleGpus } from '../../src/engine/devices.js';
import { findCudaEngine } from '../../src/engine/find.js';
import { packageRoot } from '../../src/base/package-root.js';

const dev = mkdtempSync(join(tmpdir(), 'mbridge-dev-'));
afterAll(() => {
  rmSync(dev, { recursive: true, force: true });
});
for (const name of ['nvidia0', 'nvidia1', 'nvidia10', 'nvidia3', 'nvidiactl', 'nvidia-uvm', 'null']) {
  writeFileSync(join(dev, name), '');
}
mkdirSync(join(dev, 'nvidia-caps'));

test.each<[string | undefined, number]>([
  [undefined, 4],
  ['', 0],
  ['0', 1],
  ['2,0', 2],
  ['0,1,2,3,4,5', 4],
  ['0,-1,1', 1],
  ['-1', 0],
  ['GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1', 2],
])('CUDA_VISIBLE_DEVICES=%s leaves %i of 4', (value, count) => {
  expect(visibleGpus(value === undefined ? {} : { CUDA_VISIBLE_DEVICES: value }, dev)).toBe(count);
});

test.each<[string | undefined, string]>([
  [undefined, join(packageRoot(), 'native', 'build', 'libmbridge_cuda.so')],
  ['', join(packageRoot(), 'native', 'build', 'libmbridge_cuda.so')],
  ['/a/b.so', '/a/b.so'],
  ['b.so', join(process.cwd(), 'b.so')],
])('MBRIDGE_CUDA_ENGINE=%s is %s', (value, path) => {
  expect(findCudaEngine({ MBRIDGE_CUDA_ENGINE: value }).path).toBe(path);
});

test('GPUs that nothing can run on are named with what to do, and only these', () => {
  const without = { MBRIDGE_CUDA_ENGINE: '/nowhere.so' };
  expect(unusedGpus(without, 2)).toMatch(/^the GPUs here are not used, .* no CUDA engine: .*setup-cuda$/);
  expect(unusedGpus(without, 0)).toBeUndefined();
  expect(unusedGpus({ MBRIDGE_CUDA_ENGINE: process.execPath }, 2)).toBeUndefined();
});

test('no device folder, no GPUs', () => {
  expect(visibleGpus({}, join(dev, 'absent'))).toBe(0);
});

test.each<['cpu' | 'cuda', number, number, number, string | null]>([
  ['cpu', 64, 1, 0, null],
  ['cuda', 4, 1, 4, null],
  ['cuda', 8, 2, 4, null],
  ['cuda', 7, 4, 2, null],
  ['cuda', 4, 1, 2, '4 processes need 4 GPUs, 2 are visible; dist.ranks_per_gpu=2'],
  ['cuda', 9, 4, 2, '9 processes need 3 GPUs, 2 are visible; dist.ranks_per_gpu=5'],
])('%s: %i processes, %i a GPU, on %i GPUs', (device, processes, ranksPerGpu, gpus, refusal) => {
  const [found, remedy] = refusal?.split('; ') ?? [];
  const ask = (): void => {
    requireDevices(device, processes, ranksPerGpu, gpus);
  };
  if (found === undefined) expect(ask).not.toThrow();
  else
    expect(ask).toThrow(
      expect.objectContaining({
        code: 'MB_DEVICE',
        message: found,
        hint: expect.stringContaining(remedy ?? '') as string,
      }),
    );
});

test.each([
  [1, [0, 1, 2, 3], 4],
  [2, [0, 0, 1, 1], 2],
  [3, [0, 0, 0, 1], 2],
  [4, [0, 0, 0, 0], 1],
])('with %i ranks a GPU, four local ranks use GPUs %j', (ranksPerGpu, expected, gpus) => {
  expect([0, 1, 2, 3].map((rank) => deviceIndexOf(rank, ranksPerGpu))).toEqual(expected);
  expect(gpusFor(4, ranksPerGpu)).toBe(gpus);
});

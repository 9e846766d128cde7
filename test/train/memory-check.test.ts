import { expect, test } from 'vitest';
import type { Device } from '../../src/engine/device.js';
import { MemoryPlan } from '../../src/engine/memory-plan.js';
import { refuseIfTooLarge } from '../../src/train/memory-check.js';

const GIB = 2 ** 30;

/** Half a GiB stays free for what libraries load later. */
test.each<['cpu' | 'cuda', number, { free: number; total: number; ranksPerGpu: number }, string | null]>([
  ['cuda', 39, { free: 40, total: 80, ranksPerGpu: 1 }, null],
  ['cuda', 40, { free: 40, total: 80, ranksPerGpu: 1 }, '40.0 GiB free'],
  ['cuda', 39, { free: 80, total: 80, ranksPerGpu: 2 }, null],
  ['cuda', 40, { free: 80, total: 80, ranksPerGpu: 2 }, '40.0 GiB free'],
  ['cuda', 30, { free: 20, total: 80, ranksPerGpu: 2 }, '20.0 GiB free'],
  ['cpu', 40, { free: 40, total: 80, ranksPerGpu: 4 }, null],
])('%s: a plan of %i GiB, %j', (kind, size, { free, total, ranksPerGpu }, refusal) => {
  const plan = new MemoryPlan();
  plan.tensor('parameters', [size * GIB], 'u8');
  const memory = { totalBytes: total * GIB, freeBytes: free * GIB };
  const device = { kind, info: { name: 'a GPU' }, memory: () => memory } as unknown as Device;
  const check = (): void => {
    refuseIfTooLarge(plan, device, ranksPerGpu);
  };
  if (refusal === null) expect(check).not.toThrow();
  else
    expect(check).toThrow(
      expect.objectContaining({ code: 'MB_MEMORY_PLAN', message: expect.stringContaining(refusal) as string }),
    );
});

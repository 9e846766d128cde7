import { describe, expect, test } from 'vitest';
import type { Device } from '../../src/engine/device.js';
import { MemoryPlan, type RegionName } from '../../src/engine/memory-plan.js';
import { openDevice } from '../../src/engine/open-device.js';
import type { DType } from '../../src/engine/dtype.js';
import type { Tensor } from '../../src/engine/tensor.js';

type Wish = [RegionName, number[], DType];

function planOf(wishes: readonly Wish[]): MemoryPlan {
  const plan = new MemoryPlan();
  for (const [region, shape, dtype] of wishes) plan.tensor(region, shape, dtype);
  return plan;
}

const BASE: Wish[] = [
  ['parameters', [10, 4], 'bf16'],
  ['workspace', [7], 'f32'],
];

describe('the layout of a memory plan', () => {
  test('is the same number for the same tensors', () => {
    expect(planOf(BASE).layout).toBe(planOf(BASE).layout);
    expect(planOf(BASE).layout).toBe(planOf([['parameters', [40], 'bf16'], BASE[1]!]).layout);
  });

  test.each<{ name: string; wishes: Wish[] }>([
    { name: 'another size', wishes: [['parameters', [10, 5], 'bf16'], BASE[1]!] },
    { name: 'another region', wishes: [['gradients', [10, 4], 'bf16'], BASE[1]!] },
    { name: 'another dtype of the same bytes', wishes: [['parameters', [10, 2], 'f32'], BASE[1]!] },
    { name: 'another order', wishes: [...BASE].reverse() },
    { name: 'one more', wishes: [...BASE, BASE[1]!] },
    { name: 'more than 32 bits of bytes', wishes: [['parameters', [10 + 2 ** 29, 4], 'bf16'], BASE[1]!] },
  ])('differs for $name', ({ wishes }) => {
    expect(planOf(wishes).layout).not.toBe(planOf(BASE).layout);
  });
});

test('every tensor and every region starts at 256 bytes, where libraries reach their full speed', () => {
  const plan = new MemoryPlan();
  const regions = ['parameters', 'gradients', 'workspace'] as const;
  const tensors = [1, 3, 63, 64, 65, 1000].flatMap((size) =>
    regions.flatMap((region) => (['f32', 'bf16', 'u8'] as const).map((dtype) => plan.tensor(region, [size], dtype))),
  );
  expect(tensors.map(({ localOffset }) => localOffset % 256)).toEqual(tensors.map(() => 0));
  for (const region of regions) expect(plan.region(region).bytes % 256).toBe(0);
  const used = tensors.reduce((sum, { bytes }) => sum + Math.ceil(bytes / 256) * 256, 0);
  expect(plan.totalBytes).toBe(used);
});

describe('memory on a device', () => {
  const arenas = (device: Device): number => device.binding.handles().arenas;

  test('of an empty plan is none', () => {
    const device = openDevice('cpu', 0, 1);
    const plan = new MemoryPlan();
    plan.commit(device);
    expect(arenas(device)).toBe(0);
    expect(() => plan.tensor('workspace', [1], 'f32')).toThrow(/after the plan was committed/);
    plan.release();
    device.close();
  });

  test('is taken again after it was given back, by the same tensors', () => {
    const device = openDevice('cpu', 0, 1);
    const plan = new MemoryPlan();
    const tensor = plan.tensor('workspace', [4], 'f32');
    for (let turn = 0; turn < 2; turn++) {
      plan.commit(device);
      expect(arenas(device)).toBe(1);
      const values = new Float32Array(4);
      device.write(tensor, Float32Array.of(1, 2, 3, turn));
      device.read(tensor, values);
      expect([...values]).toEqual([1, 2, 3, turn]);
      plan.release();
      expect(arenas(device)).toBe(0);
      expect(() => device.read(tensor, values)).toThrow(/tensor 0 is absent/);
    }
    device.close();
  });

  test('is given back while the plan is parked, and comes back with the state alone', () => {
    const device = openDevice('cpu', 0, 1);
    const plan = new MemoryPlan();
    const of = (region: RegionName) => plan.tensor(region, [3], 'f32');
    const weights = of('parameters');
    const gradients = of('gradients');
    const moments = of('optimizer');
    const scratch = of('workspace');
    plan.commit(device);
    [weights, gradients, moments, scratch].forEach((tensor, i) => device.write(tensor, Float32Array.of(i, i, 7)));
    const closed: string[] = [];
    plan.beforeRelease(() => closed.push('closed'));
    const read = (tensor: Tensor): number[] => {
      const values = new Float32Array(3);
      device.read(tensor, values);
      return [...values];
    };
    expect(() => plan.unpark()).toThrow(/is not parked/);
    for (let turn = 0; turn < 2; turn++) {
      plan.park();
      expect(plan.isParked).toBe(true);
      expect(closed).toEqual(['closed']);
      expect(arenas(device)).toBe(1);
      for (const use of [() => read(weights), () => plan.park(), () => device.copy(scratch, gradients)]) {
        expect(use).toThrow(expect.objectContaining({ code: 'MB_PARKED' }));
      }
      // Others have the memory meanwhile.
      const other = planOf([['workspace', [8192], 'f32']]);
      other.commit(device);
      plan.unpark();
      other.release();
      expect(plan.isParked).toBe(false);
      // The image on the host, the state, and the rest.
      expect(arenas(device)).toBe(3);
      expect([read(weights), read(moments)]).toEqual([
        [0, 0, 7],
        [2, 2, 7],
      ]);
    }
    plan.park();
    plan.release();
    expect(arenas(device)).toBe(0);
    expect(() => plan.park()).toThrow(/has no memory/);
    device.close();
  });

  test('that is not there leaves a parked plan parked', () => {
    const device = openDevice('cpu', 0, 1);
    const plan = new MemoryPlan();
    const weights = plan.tensor('parameters', [1], 'f32');
    plan.tensor('workspace', [1], 'f32');
    plan.commit(device);
    device.write(weights, Float32Array.of(5));
    plan.park();
    // A stand-in for a device whose memory others have: all of it, and all but what the state takes.
    const take = device.createArena.bind(device);
    for (const left of [0, 1]) {
      let taken = 0;
      device.createArena = (bytes) => take(taken++ < left ? bytes : 2 ** 50);
      expect(() => plan.unpark()).toThrow(/cannot allocate 1125899906842624 bytes/);
      expect(plan.isParked).toBe(true);
      expect(arenas(device)).toBe(1);
    }
    device.createArena = take;
    plan.unpark();
    const value = new Float32Array(1);
    device.read(weights, value);
    expect(value[0]).toBe(5);
    plan.release();
    expect(arenas(device)).toBe(0);
    device.close();
  });
});

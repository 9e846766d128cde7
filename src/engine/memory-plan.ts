import { MbridgeError } from '../base/errors.js';
import { DTYPES, type DType } from './dtype.js';
import { Tensor, type TensorMemory } from './tensor.js';
import type { Device } from './device.js';

/** What memory is for; the rows of `mbridge plan`. */
export const REGIONS = [
  'parameters',
  'gradients',
  'optimizer',
  'activations',
  'cache',
  'communication',
  'staging',
  'workspace',
] as const;
export type RegionName = (typeof REGIONS)[number];

/** cuBLASLt and NCCL reach their full speed from this alignment on. */
const ALIGNMENT = 256;

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** A part of the arena. Its base is known once the plan is committed. */
class Region implements TensorMemory {
  readonly name: RegionName;
  bytes = 0;
  base = 0;
  arena = -1;

  constructor(name: RegionName) {
    this.name = name;
  }
}

/**
 * One allocation, planned first. Modules ask it for tensors while they are built, with or without a device; `commit`
 * then takes the memory once. What `mbridge plan` prints is this object, so the plan is the allocation.
 */
export class MemoryPlan {
  readonly #regions = new Map<RegionName, Region>(REGIONS.map((name) => [name, new Region(name)]));
  #committed: Device | undefined;
  #hash = 0x811c9dc5;
  readonly #closers: (() => void)[] = [];

  /** Reserves a tensor. Its contents are undefined until something writes them. */
  tensor(region: RegionName, shape: readonly number[], dtype: DType): Tensor {
    if (this.#committed !== undefined) {
      throw new MbridgeError('internal', 'MB_PLAN_COMMITTED', 'memory was asked for after the plan was committed');
    }
    const r = this.region(region);
    const tensor = new Tensor(r, r.bytes, shape, dtype);
    r.bytes += align(tensor.bytes);
    for (const value of [REGIONS.indexOf(region), tensor.bytes, DTYPES[dtype].code]) this.#mix(value);
    return tensor;
  }

  /** A number of 32 bits that two plans have in common where the same tensors were asked for in the same order. */
  get layout(): number {
    return this.#hash;
  }

  /** The whole of the memory, as bytes. */
  whole(): Tensor {
    return new Tensor(this.region(REGIONS[0]), 0, [this.totalBytes], 'u8');
  }

  region(name: RegionName): Region {
    const region = this.#regions.get(name);
    if (region === undefined) throw new Error(`no region ${name}`);
    return region;
  }

  get totalBytes(): number {
    let total = 0;
    for (const region of this.#regions.values()) total += region.bytes;
    return total;
  }

  /** Bytes by region, in the order of `REGIONS`. */
  byRegion(): Record<RegionName, number> {
    return Object.fromEntries([...this.#regions].map(([name, region]) => [name, region.bytes])) as Record<
      RegionName,
      number
    >;
  }

  /** FNV-1a over 32-bit words. */
  #mix(value: number): void {
    for (const word of [value % 2 ** 32, Math.floor(value / 2 ** 32)]) {
      this.#hash = Math.imul(this.#hash ^ word, 0x01000193) >>> 0;
    }
  }

  /**
   * Takes the memory on `device`; an empty plan takes none. After {@link release} it may be committed again: the tensors
   * of the plan then have new memory, of undefined contents. Throws MB_MEMORY with both sizes where it is refused.
   */
  commit(device: Device): void {
    let base = 0;
    for (const region of this.#regions.values()) {
      region.base = base;
      base += region.bytes;
    }
    const arena = base === 0 ? -1 : device.createArena(base);
    for (const region of this.#regions.values()) region.arena = arena;
    this.#committed = device;
  }

  /** `close` is called before the memory is given back. */
  beforeRelease(close: () => void): void {
    this.#closers.push(close);
  }

  /**
   * Gives the memory back; every tensor of the plan is then invalid. Ranks that opened it to each other call it
   * together, when nothing uses it any more.
   */
  release(): void {
    if (this.#committed === undefined) return;
    for (const close of this.#closers.splice(0)) close();
    const arena = this.region('parameters').arena;
    for (const region of this.#regions.values()) region.arena = -1;
    if (arena >= 0) this.#committed.freeArena(arena);
    this.#committed = undefined;
  }
}

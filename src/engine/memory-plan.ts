import { MbridgeError } from '../base/errors.js';
import { DTYPES, type DType } from './dtype.js';
import { STREAM, type Device } from './device.js';
import { Tensor, type TensorMemory } from './tensor.js';

/** What memory is for; the rows of `mbridge plan`. */
export const REGIONS = [
  'parameters',
  'fp8',
  'gradients',
  'optimizer',
  'activations',
  'cache',
  'communication',
  'staging',
  'workspace',
] as const;
export type RegionName = (typeof REGIONS)[number];

/** What cannot be made again: all that {@link MemoryPlan.park} keeps. */
const STATE = ['parameters', 'optimizer'] as const satisfies readonly RegionName[];

/** cuBLASLt and NCCL reach their full speed from this alignment on. */
const ALIGNMENT = 256;

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Bytes of a plan that are state, of `bytes` by region. */
export function stateBytes(bytes: Readonly<Record<RegionName, number>>): number {
  return STATE.reduce((sum, name) => sum + bytes[name], 0);
}

/** A part of the arena. Its base is known once the plan is committed. */
class Region implements TensorMemory {
  readonly name: RegionName;
  bytes = 0;
  base = 0;
  handle = -1;
  parked = false;

  constructor(name: RegionName) {
    this.name = name;
  }

  /** @throws MbridgeError MB_PARKED, so that nothing works on a parked model, by whatever way it comes */
  get arena(): number {
    if (this.parked) throw parkedError();
    return this.handle;
  }
}

function parkedError(): MbridgeError {
  return new MbridgeError('config', 'MB_PARKED', 'the model is parked: its memory is not on the device', {
    hint: 'call unpark() on every rank of the model first',
  });
}

/**
 * Memory that is planned first, then taken once: an arena for what is kept while a model is parked, and one for the rest.
 * Modules ask it for tensors while they are built, with or without a device; `commit` then takes the memory. What
 * `mbridge plan` prints is this object, so the plan is the allocation.
 */
export class MemoryPlan {
  readonly #regions = new Map<RegionName, Region>(REGIONS.map((name) => [name, new Region(name)]));
  #committed: Device | undefined;
  #isParked = false;
  /** Host memory of the state: an arena that is taken by the first park. */
  #image: number | null = null;
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

  /** All of the memory, as bytes: a tensor an arena, the same on every rank that has the same layout. */
  arenas(): Tensor[] {
    return this.#parts.flatMap(([first, ...others]) => {
      const bytes = others.reduce((sum, region) => sum + region.bytes, first.bytes);
      return bytes === 0 ? [] : [new Tensor({ arena: first.arena, base: 0 }, 0, [bytes], 'u8')];
    });
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
    this.#take(device);
    this.#committed = device;
  }

  get isParked(): boolean {
    return this.#isParked;
  }

  /** @throws MbridgeError MB_PARKED */
  refuseIfParked(): void {
    if (this.#isParked) throw parkedError();
  }

  /**
   * Copies the state, regions `parameters` and `optimizer`, to host memory and gives the device's memory back, as
   * {@link release} does. The host memory is kept for the next time: to pin it takes longer than to fill it.
   * @throws MbridgeError MB_PARKED where it was done already; MB_MEMORY without host memory: then nothing has changed
   */
  park(): void {
    this.refuseIfParked();
    const device = this.#device();
    const bytes = stateBytes(this.byRegion());
    device.synchronize();
    if (bytes > 0) this.#image ??= device.createHostArena(bytes);
    for (const { here, host } of this.#state()) device.copy(here, host, STREAM.copy);
    device.synchronize();
    this.#giveBack();
    this.#setParked(true);
  }

  /**
   * Takes the device's memory again, at any address, with the state as it was; the rest is undefined. The copy is ordered
   * before what the compute stream is given next.
   * @throws MbridgeError MB_NOT_PARKED; MB_MEMORY where the device has not the memory: the plan is still parked then
   */
  unpark(): void {
    if (!this.#isParked) {
      throw new MbridgeError('config', 'MB_NOT_PARKED', 'the model is not parked', {
        hint: 'park() comes first, unpark() once for each',
      });
    }
    const device = this.#device();
    this.#setParked(false);
    try {
      // To take memory is slow too.
      this.#take(device, () => {
        for (const { here, host } of this.#state()) device.copy(host, here);
      });
    } catch (error) {
      this.#setParked(true);
      throw error;
    }
  }

  /** `close` is called before the memory is given back. */
  beforeRelease(close: () => void): void {
    this.#closers.push(close);
  }

  /**
   * Gives the memory back, that of the host too; every tensor of the plan is then invalid. Ranks that opened it to each
   * other call it together, when nothing uses it any more.
   */
  release(): void {
    const device = this.#committed;
    if (device === undefined) return;
    if (!this.#isParked) this.#giveBack();
    this.#setParked(false);
    if (this.#image !== null) device.freeArena(this.#image);
    this.#image = null;
    this.#committed = undefined;
  }

  #device(): Device {
    if (this.#committed === undefined) throw new Error('the plan has no memory: it was not committed, or was released');
    return this.#committed;
  }

  /** Regions by arena: the state's, and of all that a park drops. */
  get #parts(): [Region, ...Region[]][] {
    const all = [...this.#regions.values()];
    const isState = ({ name }: Region): boolean => STATE.some((each) => each === name);
    return [all.filter(isState), all.filter((region) => !isState(region))] as [Region, ...Region[]][];
  }

  /** @param begun is called when the state has its memory, before the rest has. */
  #take(device: Device, begun: () => void = () => undefined): void {
    try {
      for (const [i, part] of this.#parts.entries()) {
        let bytes = 0;
        for (const region of part) {
          region.base = bytes;
          bytes += region.bytes;
        }
        const arena = bytes === 0 ? -1 : device.createArena(bytes);
        for (const region of part) region.handle = arena;
        if (i === 0) begun();
      }
    } catch (error) {
      this.#free(device);
      throw error;
    }
  }

  #giveBack(): void {
    for (const close of this.#closers.splice(0)) close();
    if (this.#committed !== undefined) this.#free(this.#committed);
  }

  #free(device: Device): void {
    for (const part of this.#parts) {
      if (part[0].handle >= 0) device.freeArena(part[0].handle);
      for (const region of part) region.handle = -1;
    }
  }

  #setParked(parked: boolean): void {
    for (const region of this.#regions.values()) region.parked = parked;
    this.#isParked = parked;
  }

  /** The state on the device and in host memory, region by region. */
  #state(): { here: Tensor; host: Tensor }[] {
    const arena = this.#image ?? -1;
    let base = 0;
    return STATE.map((name) => this.region(name))
      .filter(({ bytes }) => bytes > 0)
      .map((region) => {
        const host = new Tensor({ arena, base }, 0, [region.bytes], 'u8');
        base += region.bytes;
        return { here: new Tensor(region, 0, [region.bytes], 'u8'), host };
      });
  }
}

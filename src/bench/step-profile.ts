import type { NativeBinding } from '../engine/binding.js';
import type { Device } from '../engine/device.js';
import { observedBinding, type ObservedCall } from './observed-binding.js';
import type { Ceilings } from './session.js';

/** Calls of one name, added up. */
export interface ProfiledCalls {
  readonly name: string;
  readonly communication: boolean;
  readonly calls: number;
  readonly ms: number;
  readonly bytes: number;
  readonly flops: number;
}

/** Events come in pairs, and a device has 256: so many calls are measured before the device is waited for. */
const PAIRS = 50;

/**
 * Milliseconds of every call of one step. Calls are serialised, whatever stream they are on, so that each is measured
 * alone: the sum is what the step would take without overlap, and without waiting for the host.
 */
export class StepProfile {
  /** To open the device with. */
  readonly binding: NativeBinding;
  private readonly native: NativeBinding;
  private device: Device | undefined;
  private pairs: readonly (readonly [number, number])[] = [];
  private active = false;
  private pending: { call: ObservedCall; pair: readonly [number, number] }[] = [];
  private totals = new Map<string, ProfiledCalls>();

  constructor(binding: NativeBinding) {
    this.native = binding;
    this.binding = observedBinding(binding, (call, issue) => {
      if (this.active) this.measure(call, issue);
      else issue();
    });
  }

  /** Takes the events that it needs; once, before `begin`. */
  attach(device: Device): void {
    this.device = device;
    this.pairs = Array.from({ length: PAIRS }, () => [device.event(), device.event()] as const);
  }

  begin(): void {
    this.totals = new Map();
    this.handle();
    this.active = true;
  }

  /** Everything since `begin`, the longest first. */
  end(): ProfiledCalls[] {
    this.flush();
    this.active = false;
    return [...this.totals.values()].sort((a, b) => b.ms - a.ms);
  }

  private handle(): number {
    if (this.device === undefined) throw new Error('the profile has no device');
    return this.device.handle;
  }

  private measure(call: ObservedCall, issue: () => void): void {
    const handle = this.handle();
    const last = this.pending.at(-1);
    const pair = this.pairs[this.pending.length];
    if (pair === undefined) throw new Error('the profile has no events left');
    if (last !== undefined && last.call.stream !== call.stream) this.native.wait(handle, call.stream, last.pair[1]);
    this.native.record(handle, call.stream, pair[0]);
    issue();
    this.native.record(handle, call.stream, pair[1]);
    this.pending.push({ call, pair });
    if (this.pending.length === this.pairs.length) this.flush();
  }

  private flush(): void {
    const handle = this.handle();
    this.native.synchronize(handle);
    for (const { call, pair } of this.pending) {
      const { cost, communication } = call;
      const sum = this.totals.get(cost.name) ?? { name: cost.name, communication, calls: 0, ms: 0, bytes: 0, flops: 0 };
      this.totals.set(cost.name, {
        ...sum,
        calls: sum.calls + 1,
        ms: sum.ms + this.native.elapsedMs(handle, pair[0], pair[1]),
        bytes: sum.bytes + cost.bytes,
        flops: sum.flops + cost.flops,
      });
    }
    this.pending = [];
  }
}

/** Milliseconds that the card needs at least: its own rates for the products, or for the bytes, whichever is longer. */
export function floorMs(calls: Pick<ProfiledCalls, 'bytes' | 'flops'>, ceilings: Ceilings): number {
  return Math.max(calls.bytes / ceilings.copyGBs / 1e6, calls.flops / ceilings.gemmTflops / 1e9);
}

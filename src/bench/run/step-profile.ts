import type { NativeBinding } from '../../engine/binding.js';
import type { Device } from '../../engine/device.js';
import type { EventLease } from '../../engine/event-lease.js';
import type { CallCost } from '../device/call-cost.js';
import { observedBinding, type ObservedCall } from '../device/observed-binding.js';
import type { Ceilings } from '../device/session.js';

/** Calls of one name, added up. */
export interface ProfiledCalls {
  readonly name: string;
  readonly communication: boolean;
  readonly calls: number;
  readonly ms: number;
  readonly bytes: number;
  readonly flops: number;
}

interface PendingCall {
  readonly cost: CallCost;
  readonly stream: number;
  readonly communication: boolean;
}

/** So many calls are measured before the device is waited for. */
const CALLS = 22;

/**
 * Milliseconds of every call of one step. Calls are serialised, whatever stream they are on, so that each is measured
 * alone: the sum is what the step would take without overlap, and without waiting for the host.
 */
export class StepProfile {
  /** To open the device with. */
  readonly binding: NativeBinding;
  readonly #native: NativeBinding;
  #device: Device | undefined;
  /** One before the first call of a batch, and one after each. */
  #events: EventLease | undefined;
  #active = false;
  #pending: PendingCall[] = [];
  #totals = new Map<string, ProfiledCalls>();

  constructor(binding: NativeBinding) {
    this.#native = binding;
    this.binding = observedBinding(binding, (call, issue) => {
      if (this.#active) this.#measure(call, issue);
      else issue();
    });
  }

  /** Takes the events that it needs; once, before `begin`. */
  attach(device: Device): void {
    this.#device = device;
    this.#events = device.lease(CALLS + 1, { timed: true });
  }

  begin(): void {
    this.#totals = new Map();
    this.#native.synchronize(this.#handle());
    this.#active = true;
  }

  /** Everything since `begin`, the longest first. */
  end(): ProfiledCalls[] {
    this.#flush();
    this.#active = false;
    return [...this.#totals.values()].sort((a, b) => b.ms - a.ms);
  }

  /** Gives back what `attach` took. */
  dispose(): void {
    this.#events?.end();
  }

  #handle(): number {
    if (this.#device === undefined) throw new Error('the profile has no device');
    return this.#device.handle;
  }

  #measure(call: ObservedCall, issue: () => void): void {
    const handle = this.#handle();
    const last = this.#pending.at(-1);
    const before = this.#eventAt(this.#pending.length);
    const cost = call.cost();
    if (last === undefined) this.#native.record(handle, call.stream, before);
    else if (last.stream !== call.stream) this.#native.wait(handle, call.stream, before);
    issue();
    this.#pending.push({ cost, stream: call.stream, communication: call.communication });
    this.#native.record(handle, call.stream, this.#eventAt(this.#pending.length));
    if (this.#pending.length === CALLS) this.#flush();
  }

  #eventAt(index: number): number {
    if (this.#events === undefined) throw new Error('the profile has no device');
    return this.#events.at(index);
  }

  #flush(): void {
    const handle = this.#handle();
    this.#native.synchronize(handle);
    this.#pending.forEach(({ cost, communication }, i) => {
      const sum = this.#totals.get(cost.name) ?? {
        name: cost.name,
        communication,
        calls: 0,
        ms: 0,
        bytes: 0,
        flops: 0,
      };
      this.#totals.set(cost.name, {
        ...sum,
        calls: sum.calls + 1,
        ms: sum.ms + this.#native.elapsedMs(handle, this.#eventAt(i), this.#eventAt(i + 1)),
        bytes: sum.bytes + cost.bytes,
        flops: sum.flops + cost.flops,
      });
    });
    this.#pending = [];
  }
}

/** Milliseconds that the card needs at least: its own rates for the products, or for the bytes, whichever is longer. */
export function floorMs(calls: Pick<ProfiledCalls, 'bytes' | 'flops'>, ceilings: Ceilings): number {
  return Math.max(calls.bytes / ceilings.copyGBs / 1e6, calls.flops / ceilings.gemmTflops / 1e9);
}

import { MbridgeError } from '../base/errors.js';
import type { NativeBinding } from './binding.js';

/**
 * Events that one user took from a device. Whoever leases them ends the lease where it gives back what else it holds:
 * a device has no fixed number of events, and a process may build models for days.
 */
export class EventLease {
  readonly #binding: NativeBinding;
  #events: readonly number[];
  #next = 0;

  /** Use {@link Device.lease}. */
  constructor(binding: NativeBinding, device: number, count: number, timed: boolean) {
    this.#binding = binding;
    this.#events = Array.from({ length: count }, () => binding.eventCreate(device, timed));
  }

  /** The event at `index`. Throws MB_EVENT for one that is not of this lease, and after {@link end}. */
  at(index: number): number {
    const event = this.#events[index];
    if (event === undefined) {
      const found = `event ${index} of a lease that has ${this.#events.length}`;
      throw new MbridgeError('internal', 'MB_EVENT', `${found}: too few were leased, or the lease has ended`);
    }
    return event;
  }

  /** The events by turns. */
  next(): number {
    const event = this.at(this.#next);
    this.#next = (this.#next + 1) % this.#events.length;
    return event;
  }

  /** Gives the events back, once or more often; work that waits for them already is not disturbed. */
  end(): void {
    for (const event of this.#events) this.#binding.eventDestroy(event);
    this.#events = [];
    this.#next = 0;
  }
}

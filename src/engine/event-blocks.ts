import type { NativeBinding } from './binding.js';
import { EventLease } from './event-lease.js';

/** Events that are taken at once. */
const BLOCK = 512;

/** As many timed events as are asked for, by number. They are taken when they are needed, and given back by {@link end}. */
export class EventBlocks {
  readonly #binding: NativeBinding;
  readonly #device: number;
  #leases: EventLease[] = [];

  constructor(binding: NativeBinding, device: number) {
    this.#binding = binding;
    this.#device = device;
  }

  at(index: number): number {
    const block = Math.floor(index / BLOCK);
    const lease = (this.#leases[block] ??= new EventLease(this.#binding, this.#device, BLOCK, true));
    return lease.at(index % BLOCK);
  }

  end(): void {
    for (const lease of this.#leases) lease.end();
    this.#leases = [];
  }
}

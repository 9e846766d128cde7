import { STREAM, type Device } from '../../engine/device.js';

/** Who still reads some memory on another stream: an event each, after which it is done. */
export class Readers {
  readonly #events = new Set<number>();

  add(event: number): void {
    this.#events.add(event);
  }

  /** Makes the compute stream wait for all of them, before it changes what they read. */
  wait(device: Device): void {
    for (const event of this.#events) device.wait(STREAM.compute, event);
    this.#events.clear();
  }

  /** For one whose event is given back: what it read is read. */
  forget(event: number): void {
    this.#events.delete(event);
  }
}

import type { NativeBinding } from './binding.js';
import { EventBlocks } from './event-blocks.js';

/** The stream that all others serve, STREAM.compute. */
const COMPUTE = 0;

/**
 * How long a device's compute stream waits for what other ranks, or other streams, have to give: a rank that seldom waits
 * is the one that the others wait for. On a CPU a collective waits on the calling thread, whatever its stream; on a GPU
 * events before and after each wait tell. Measures only between {@link begin} and {@link end}.
 */
export class StallClock {
  readonly #binding: NativeBinding;
  readonly #device: number;
  readonly #onHost: boolean;
  /** The even ones begin a wait, the odd ones end it. */
  readonly #events: EventBlocks;
  #waits = 0;
  #hostMs = 0;
  #measuring = false;

  /** @param onHost whether work is done as it is called, as on a CPU */
  constructor(binding: NativeBinding, device: number, onHost: boolean) {
    this.#binding = binding;
    this.#device = device;
    this.#onHost = onHost;
    this.#events = new EventBlocks(binding, device);
  }

  /** Forgets what was measured, and measures. */
  begin(): void {
    this.#waits = 0;
    this.#hostMs = 0;
    this.#measuring = true;
  }

  end(): void {
    this.#measuring = false;
  }

  /** Milliseconds of waiting that were measured. On a GPU it waits for the last of them to be over. */
  milliseconds(): number {
    if (this.#onHost) return this.#hostMs;
    let sum = 0;
    for (let i = 0; i < this.#waits; i++) {
      sum += this.#binding.elapsedMs(this.#device, this.#events.at(2 * i), this.#events.at(2 * i + 1));
    }
    return sum;
  }

  /** Gives the events back, and measures no more until the next {@link begin}. */
  close(): void {
    this.#measuring = false;
    this.#events.end();
    this.#waits = 0;
  }

  /** Makes a call that waits on `stream`. */
  during(stream: number, call: () => void): void {
    if (!this.#measuring || (!this.#onHost && stream !== COMPUTE)) {
      call();
      return;
    }
    if (this.#onHost) {
      const begin = performance.now();
      call();
      this.#hostMs += performance.now() - begin;
      return;
    }
    const at = 2 * this.#waits;
    this.#binding.record(this.#device, stream, this.#events.at(at));
    call();
    this.#binding.record(this.#device, stream, this.#events.at(at + 1));
    this.#waits++;
  }
}

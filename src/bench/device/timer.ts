import { STREAM, type Device } from '../../engine/device.js';
import type { EventLease } from '../../engine/event-lease.js';

/** Milliseconds of one call. */
export interface Timing {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Samples taken, and calls in each. */
  readonly samples: number;
  readonly calls: number;
}

export interface TimerOptions {
  /** Length of one sample in milliseconds: calls are repeated until they fill it. */
  readonly sampleMs: number;
  readonly samples: number;
}

const WARM_UP_CALLS = 3;
const MOST_CALLS = 500;

/** Long enough on a GPU that clocks settle as they do in training; short on a CPU, where tests run it. */
function defaultTiming(kind: Device['kind']): TimerOptions {
  return kind === 'cuda' ? { sampleMs: 8, samples: 15 } : { sampleMs: 2, samples: 3 };
}

export function summarize(values: readonly number[], calls = 1): Timing {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const median = ((sorted[Math.floor(middle)] ?? NaN) + (sorted[Math.ceil(middle)] ?? NaN)) / 2;
  return { median, min: sorted[0] ?? NaN, max: sorted.at(-1) ?? NaN, samples: sorted.length, calls };
}

/** Times device work with the device's own events. */
export class DeviceTimer {
  readonly #device: Device;
  readonly #options: TimerOptions;
  readonly #events: EventLease;

  constructor(device: Device, options: TimerOptions = defaultTiming(device.kind)) {
    this.#device = device;
    this.#options = options;
    this.#events = device.lease(2, { timed: true });
  }

  /** Gives its events back. */
  dispose(): void {
    this.#events.end();
  }

  /** @param run enqueues one call on the compute stream; it is given a number that counts up, to choose buffers by */
  measure(run: (round: number) => void): Timing {
    let round = 0;
    const sample = (calls: number): number => this.sample(calls, () => run(round++));
    sample(WARM_UP_CALLS);
    const once = sample(2);
    const { sampleMs, samples } = this.#options;
    const calls = Math.min(MOST_CALLS, Math.max(1, Math.ceil(sampleMs / Math.max(once, 1e-4))));
    return summarize(
      Array.from({ length: samples }, () => sample(calls)),
      calls,
    );
  }

  /** Milliseconds of a call, over `calls` of them. */
  sample(calls: number, run: () => void): number {
    const [start, end] = [this.#events.at(0), this.#events.at(1)];
    this.#device.record(start, STREAM.compute);
    for (let i = 0; i < calls; i++) run();
    this.#device.record(end, STREAM.compute);
    return this.#device.elapsedMs(start, end) / calls;
  }
}

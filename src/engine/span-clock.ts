import type { NativeBinding } from './binding.js';
import { EventBlocks } from './event-blocks.js';

/** What is done in a span. */
export interface SpanLabel {
  readonly name: string;
  /** Spans of a track lie behind or inside each other. */
  readonly track: string;
  readonly args?: Readonly<Record<string, string | number>>;
}

/** Something that a device or its host did. */
export interface Span extends SpanLabel {
  /** Since 1970, in microseconds. */
  readonly beginUs: number;
  readonly us: number;
}

interface DeviceSpan {
  readonly label: SpanLabel;
  /** Of the event before it; the one after it follows. */
  readonly event: number;
}

/** The stream that the others serve, STREAM.compute. */
const COMPUTE = 0;
/** Spans of a recording: two events each on a GPU. */
const MOST_SPANS = 200_000;

/**
 * Records when a device did what, between {@link begin} and {@link end}: on a GPU by events on the streams, which work
 * passes without waiting; on a CPU by the host's clock, since work is done as it is called. Otherwise it costs nothing.
 */
export class SpanClock {
  readonly #binding: NativeBinding;
  readonly #device: number;
  readonly #onHost: boolean;
  readonly #events: EventBlocks;
  #recording = false;
  /** Event 0 was passed then. */
  #baseUs = 0;
  #deviceSpans: DeviceSpan[] = [];
  #spans: Span[] = [];

  /** @param onHost whether work is done as it is called, as on a CPU */
  constructor(binding: NativeBinding, device: number, onHost: boolean) {
    this.#binding = binding;
    this.#device = device;
    this.#onHost = onHost;
    this.#events = new EventBlocks(binding, device);
  }

  get recording(): boolean {
    return this.#recording;
  }

  /** Waits for the device, and records from now on. */
  begin(): void {
    this.#binding.synchronize(this.#device);
    if (!this.#onHost) this.#binding.record(this.#device, COMPUTE, this.#events.at(0));
    this.#baseUs = nowUs();
    this.#recording = true;
  }

  /** Waits for the device, and tells what was recorded, in no order. Nothing is recorded any more. */
  end(): Span[] {
    this.#recording = false;
    const spans = this.#spans;
    for (const { label, event } of this.#deviceSpans) {
      const from = this.#usSince(0, event);
      spans.push({ ...label, beginUs: this.#baseUs + from, us: this.#usSince(event, event + 1) });
    }
    this.close();
    return spans;
  }

  /** Gives the events back. */
  close(): void {
    this.#recording = false;
    this.#deviceSpans = [];
    this.#spans = [];
    this.#events.end();
  }

  /** Enqueues work on a stream. */
  onDevice(label: SpanLabel, stream: number, enqueue: () => void): void {
    if (this.#onHost) {
      this.onHost(label, enqueue);
      return;
    }
    if (!this.#recording || this.#deviceSpans.length >= MOST_SPANS) {
      enqueue();
      return;
    }
    // Event 0 is the beginning.
    const event = 1 + 2 * this.#deviceSpans.length;
    this.#deviceSpans.push({ label, event });
    this.#binding.record(this.#device, stream, this.#events.at(event));
    enqueue();
    this.#binding.record(this.#device, stream, this.#events.at(event + 1));
  }

  /** What the host itself does. */
  onHost<T>(label: SpanLabel, act: () => T): T {
    if (!this.#recording || this.#spans.length >= MOST_SPANS) return act();
    const beginUs = nowUs();
    const result = act();
    this.#spans.push({ ...label, beginUs, us: nowUs() - beginUs });
    return result;
  }

  #usSince(first: number, second: number): number {
    return this.#binding.elapsedMs(this.#device, this.#events.at(first), this.#events.at(second)) * 1000;
  }
}

function nowUs(): number {
  return (performance.timeOrigin + performance.now()) * 1000;
}

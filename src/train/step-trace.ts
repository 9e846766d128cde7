import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunConfig } from '../config/schema.js';
import type { Device } from '../engine/device.js';
import type { Span } from '../engine/span-clock.js';
import type { WorkerContext } from '../job/worker/context.js';

/** Of a rank's folder: what it did in the traced updates. */
const TRACE_FILE = 'trace.json';

/**
 * The trace of some updates of one rank that `logger.trace_steps` asks for, in Chrome's trace event format, which
 * https://ui.perfetto.dev and chrome://tracing open.
 */
export class StepTrace {
  readonly #device: Device;
  readonly #context: Pick<WorkerContext, 'rank' | 'runDir' | 'log'>;
  readonly #first: number;
  readonly #last: number;
  readonly #name: string;

  private constructor(
    device: Device,
    context: Pick<WorkerContext, 'rank' | 'runDir' | 'log'>,
    [first, last]: readonly [number, number],
    name: string,
  ) {
    this.#device = device;
    this.#context = context;
    this.#first = first;
    this.#last = last;
    this.#name = name;
  }

  /**
   * Null where none is asked for.
   * @param coordinates of this rank in the layout
   */
  static of(
    { logger }: RunConfig,
    context: Pick<WorkerContext, 'rank' | 'runDir' | 'log'>,
    device: Device,
    coordinates: Readonly<Record<string, number>>,
  ): StepTrace | null {
    const [first, last] = logger.trace_steps ?? [];
    if (first === undefined || last === undefined) return null;
    const place = Object.entries(coordinates).map(([name, at]) => `${name} ${at}`);
    return new StepTrace(device, context, [first, last], `rank ${context.rank} (${place.join(', ')})`);
  }

  /** As an update begins. */
  begin(step: number): void {
    // A run that resumed behind the first has the rest of them.
    if (step >= this.#first && step <= this.#last && !this.#device.spans.recording) this.#device.spans.begin();
  }

  /** Once an update is enqueued. After the last one it waits for the device, and writes. */
  end(step: number): void {
    if (step !== this.#last || !this.#device.spans.recording) return;
    this.write();
  }

  /** What was recorded so far, if anything was: also of a run that ends before the last of the updates. */
  write(): void {
    if (!this.#device.spans.recording) return;
    const { rank, runDir, log } = this.#context;
    const path = join(runDir, `rank-${rank}`, TRACE_FILE);
    const spans = this.#device.spans.end();
    try {
      writeFileSync(path, JSON.stringify(chromeTrace(spans, rank, this.#name)));
      log.info(`${spans.length} spans of updates ${this.#first} to ${this.#last} are in ${path}`);
    } catch (cause) {
      log.warn(`${path} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
  }
}

/** A process a rank, a thread a track. Times in microseconds since 1970, so that the files of one host's ranks fit together. */
function chromeTrace(spans: readonly Span[], rank: number, name: string): object {
  const tracks = [...new Set(spans.map(({ track }) => track))].sort();
  const named = (what: string, tid: number, text: string): object => {
    return { ph: 'M', name: what, pid: rank, tid, args: { name: text } };
  };
  return {
    displayTimeUnit: 'ms',
    traceEvents: [
      named('process_name', 0, name),
      ...tracks.map((track, tid) => named('thread_name', tid, track)),
      ...spans.map(({ name: what, track, beginUs, us, args }) => ({
        ...{ ph: 'X', name: what, cat: track, pid: rank, tid: tracks.indexOf(track), ts: beginUs, dur: us },
        ...(args === undefined ? {} : { args }),
      })),
    ],
  };
}

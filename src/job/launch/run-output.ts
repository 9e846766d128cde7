import {
  EventLines,
  WARN_LEVEL,
  formatLogLine,
  paintFor,
  warningOf,
  type EventStyle,
  type Paint,
} from '../shared/console-lines.js';
import type { MbridgeError } from '../../base/errors.js';
import { EVENT, type StepEvent, type WorkerEvent } from '../shared/messages.js';
import { isTrainingResult } from '../shared/summary-text.js';
import { stdoutRefused } from '../shared/report-error.js';
import { LiveLine, isWatched } from './live-line.js';
import { liveText } from './live-text.js';

export interface RunOutputOptions extends EventStyle {
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
  nproc: number;
  consoleRanks: 'all' | readonly number[];
  /** Whether a terminal has a live line of how far the training is. */
  live: boolean;
  /** The reader of stdout is gone. Called once. */
  onBrokenPipe(): void;
}

/** The run's console: results on stdout, all else on stderr. */
export class RunOutput {
  readonly #options: RunOutputOptions;
  readonly #paint: Paint;
  readonly #lines: EventLines;
  readonly #live: LiveLine | null;
  readonly #started = performance.now();
  /** The last step that was shown, and when. */
  #step: { readonly event: StepEvent; readonly time: number } | undefined;
  readonly #removeListeners: () => void;
  #broken = false;
  #refused: MbridgeError | undefined;
  #result: WorkerEvent | undefined;
  #closing: WorkerEvent = { type: 'result' };

  constructor(options: RunOutputOptions) {
    this.#options = options;
    this.#paint = paintFor(options.stderr);
    this.#lines = new EventLines(options);
    const { stdout, stderr, live, json } = options;
    this.#live =
      live && !json && isWatched(stdout, stderr) ? new LiveLine(stderr, (width) => this.#liveText(width)) : null;
    const onError = (error: NodeJS.ErrnoException): void => {
      if (this.#broken) return;
      this.#broken = true;
      if (error.code === 'EPIPE') options.onBrokenPipe();
      else {
        this.#refused = stdoutRefused(error);
        this.warn(`stdout cannot be written, and gets no more results: ${error.message}`);
      }
    };
    const ignore = (): void => undefined;
    options.stdout.on('error', onError);
    options.stderr.on('error', ignore);
    this.#removeListeners = () => {
      options.stdout.off('error', onError);
      options.stderr.off('error', ignore);
    };
  }

  get paint(): Paint {
    return this.#paint;
  }

  /** Why stdout did not take all results, though it still had a reader. */
  get refused(): MbridgeError | undefined {
    return this.#refused;
  }

  /** What a worker sent as the result, if it did. */
  get sent(): WorkerEvent | undefined {
    return this.#result;
  }

  /** Updates of the run, if a worker's result says so. */
  get steps(): number | undefined {
    const steps = this.#result?.['steps'];
    return typeof steps === 'number' ? steps : undefined;
  }

  /** Prints it, or keeps it for {@link result} if it is the result. */
  event(event: WorkerEvent): void {
    if (event.type === 'result') this.#result = event;
    else this.#print(event);
  }

  /** A fact that only `--json` has as a line: people read it on stderr. */
  fact(event: WorkerEvent): void {
    if (this.#options.json) this.#print(event);
  }

  log(rank: number, line: string): void {
    this.note(`${this.#prefix(rank)}${formatLogLine(line, this.#paint)}`);
    const text = warningOf(line);
    if (text !== undefined) this.fact({ type: EVENT.warning, text, rank });
  }

  /** A raw line of a worker's own stdout or stderr: of the ranks that are shown, and never on our stdout. */
  output(rank: number, line: string): void {
    const { consoleRanks } = this.#options;
    if (consoleRanks === 'all' || consoleRanks.includes(rank)) this.note(`${this.#prefix(rank)}${line}`);
  }

  note(text: string): void {
    this.#live?.clear();
    this.#options.stderr.write(`${text}\n`);
    this.#live?.draw();
  }

  /** @param event what `--json` has of it, where that is more than a warning */
  warn(text: string, event: WorkerEvent = { type: EVENT.warning, text }): void {
    this.note(formatLogLine(JSON.stringify({ level: WARN_LEVEL, msg: text }), this.#paint));
    this.fact(event);
  }

  /** Warns in the words that it is given, with what `--json` has of such an event. */
  warnOf(type: string): (text: string, facts?: object) => void {
    return (text, facts = {}) => {
      this.warn(text, { type, ...facts, text });
    };
  }

  /** The last line: what a worker sent as the result, and how the run ended. Readable output only has what workers sent. */
  result(ending: Record<string, unknown>): void {
    this.#closing = { type: 'result', ...ending, ...withoutType(this.#result) };
    if (this.#options.json) this.#print(this.#closing);
    else if (this.#result !== undefined && !isTrainingResult(this.#result)) this.#print(this.#result);
  }

  /** What {@link result} printed, or would have with json. */
  get closing(): WorkerEvent {
    return this.#closing;
  }

  /** Nothing more is to come: the live line goes. */
  settle(): void {
    this.#live?.close();
  }

  close(): void {
    this.settle();
    // A write that was refused reports its error later than this call.
    setImmediate(this.#removeListeners);
  }

  #prefix(rank: number): string {
    return this.#options.nproc === 1 || rank < 0 ? '' : `[r${rank}] `;
  }

  #print(event: WorkerEvent): void {
    const { stdout } = this.#options;
    const columns = 'columns' in stdout && typeof stdout.columns === 'number' ? stdout.columns : undefined;
    const line = this.#lines.format(event, columns);
    if (event.type === 'step') this.#step = { event: event as StepEvent, time: performance.now() };
    if (line === null || this.#broken) return;
    this.#live?.clear();
    stdout.write(`${line}\n`);
    this.#live?.draw();
  }

  #liveText(columns: number): string {
    const now = performance.now();
    const facts = {
      totalSteps: this.#options.totalSteps,
      step: this.#step?.event,
      validation: this.#lines.validation,
      seconds: (now - this.#started) / 1000,
      sinceStep: (now - (this.#step?.time ?? now)) / 1000,
    };
    return liveText(facts, columns);
  }
}

function withoutType(event: WorkerEvent | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(event ?? {}).filter(([key]) => key !== 'type'));
}

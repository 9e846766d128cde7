import type { InputFile } from './input-files.js';
import type { PartsProgress } from './make-parts.js';

const TERMINAL_MS = 250;
const PLAIN_MS = 10_000;
/** Bad lines that are shown; all are counted. */
const SHOWN = 20;

/** Where progress is shown: stderr. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Says how far a command is: one line that changes on a terminal, else a line now and then. */
export class Progress implements PartsProgress {
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  readonly #started: number;
  readonly #total: { readonly files: number; readonly bytes: number };
  #last: number;
  #files = 0;
  /** Of files whose parts were kept. */
  #kept = 0;
  #bytes = 0;
  #tokens = 0;
  #bad = 0;
  #shown = false;

  /** @param now milliseconds */
  constructor(files: readonly InputFile[], stream: ProgressStream, now: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#now = now;
    this.#started = now();
    this.#last = this.#started;
    this.#total = { files: files.length, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0) };
  }

  read(bytes: number): void {
    this.#bytes += bytes;
    this.#show();
  }

  wrote(tokens: number): void {
    this.#tokens += tokens;
    this.#show();
  }

  bad(place: string, found: string): void {
    this.#bad++;
    if (this.#bad > SHOWN + 1) return;
    this.#clear();
    const text = this.#bad > SHOWN ? 'more lines are left out (all are counted)' : `${place}: left out: ${found}`;
    this.#stream.write(`warning: ${text.replace(/\p{Cc}+/gu, '?').slice(0, 400)}\n`);
  }

  done(file: InputFile, kept: boolean): void {
    this.#files++;
    if (kept) this.#kept += file.bytes;
    this.#show();
  }

  /** Seconds since it began. */
  get seconds(): number {
    return (this.#now() - this.#started) / 1000;
  }

  /** Bytes of input that were read in this call. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Removes the line that changes. */
  end(): void {
    this.#clear();
  }

  #show(): void {
    const now = this.#now();
    const terminal = this.#stream.isTTY === true;
    if (now - this.#last < (terminal ? TERMINAL_MS : PLAIN_MS)) return;
    this.#last = now;
    const text = this.#text();
    this.#stream.write(terminal ? `\r\x1b[K${text.slice(0, (this.#stream.columns ?? 80) - 1)}` : `${text}\n`);
    this.#shown = terminal;
  }

  #clear(): void {
    if (this.#shown) this.#stream.write('\r\x1b[K');
    this.#shown = false;
  }

  #text(): string {
    const { files, bytes } = this.#total;
    const seconds = Math.max(this.seconds, 1e-3);
    const done = this.#bytes + this.#kept;
    const left = this.#bytes === 0 ? '' : `, ${duration(((bytes - done) / this.#bytes) * seconds)} left`;
    const share = bytes === 0 ? 100 : Math.floor((100 * done) / bytes);
    const rate = `${megabytes(this.#bytes / seconds)}/s, ${Math.round(this.#tokens / seconds).toLocaleString('en-US')} tokens/s`;
    return `${this.#files}/${files} files, ${megabytes(done)} of ${megabytes(bytes)} (${share} %), ${rate}${left}`;
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** `1:02:03` */
function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number): string => `${n}`.padStart(2, '0');
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

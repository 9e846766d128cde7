import type { WriteStream } from 'node:tty';

const REFRESH_MS = 1000;
const CLEAR = '\r\x1b[2K';
const DIM = '\x1b[2m';
const PLAIN = '\x1b[0m';

/** What a live line shows, at any moment, in so many columns. */
export type LiveText = (columns: number) => string;

/**
 * The last line of a terminal, rewritten in place while a run goes on. Whatever else is written goes above it: the writer
 * calls {@link clear} before and {@link draw} after.
 */
export class LiveLine {
  readonly #stream: WriteStream;
  readonly #text: LiveText;
  readonly #timer: NodeJS.Timeout;
  #shown = false;
  #closed = false;

  constructor(stream: WriteStream, text: LiveText) {
    this.#stream = stream;
    this.#text = text;
    this.#timer = setInterval(() => {
      this.clear();
      this.draw();
    }, REFRESH_MS);
    this.#timer.unref();
  }

  draw(): void {
    if (this.#closed) return;
    // In the last column some terminals begin a new line.
    const room = Math.max(0, this.#stream.columns - 1);
    this.#stream.write(`${DIM}${this.#text(room).slice(0, room)}${PLAIN}`);
    this.#shown = true;
  }

  clear(): void {
    if (this.#shown) this.#stream.write(CLEAR);
    this.#shown = false;
  }

  /** The line goes, and does not come back. */
  close(): void {
    clearInterval(this.#timer);
    this.#closed = true;
    this.clear();
  }
}

/** Whether somebody watches: both streams are one terminal that can rewrite a line, not in CI, and not against the user's wish. */
export function isWatched(stdout: object, stderr: object, env: NodeJS.ProcessEnv = process.env): stderr is WriteStream {
  const set = (name: string): boolean => !['', 'false', '0'].includes(env[name] ?? '');
  const isTerminal = (stream: object): boolean => 'isTTY' in stream && stream.isTTY === true;
  return (
    isTerminal(stdout) && isTerminal(stderr) && (env['NO_COLOR'] ?? '') === '' && !set('CI') && env['TERM'] !== 'dumb'
  );
}

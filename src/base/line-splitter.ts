import { StringDecoder } from 'node:string_decoder';

/** Cuts a byte stream into whole lines (without their ends). A line longer than `limit` characters is cut there. */
export class LineSplitter {
  readonly #decoder = new StringDecoder('utf8');
  readonly #onLine: (line: string) => void;
  readonly #limit: number;
  #rest = '';

  constructor(onLine: (line: string) => void, limit = 65_536) {
    this.#onLine = onLine;
    this.#limit = limit;
  }

  push(chunk: Buffer): void {
    this.#rest += this.#decoder.write(chunk);
    let start = 0;
    for (;;) {
      const end = this.#rest.indexOf('\n', start);
      if (end < 0) break;
      this.#emit(this.#rest.slice(start, end));
      start = end + 1;
    }
    this.#rest = this.#rest.slice(start);
    while (this.#rest.length > this.#limit) {
      this.#onLine(this.#rest.slice(0, this.#limit));
      this.#rest = this.#rest.slice(this.#limit);
    }
  }

  /** Hands over an unfinished last line, if there is one. */
  end(): void {
    this.#rest += this.#decoder.end();
    if (this.#rest !== '') this.#emit(this.#rest);
    this.#rest = '';
  }

  #emit(line: string): void {
    let text = line.endsWith('\r') ? line.slice(0, -1) : line;
    for (; text.length > this.#limit; text = text.slice(this.#limit)) this.#onLine(text.slice(0, this.#limit));
    this.#onLine(text);
  }
}

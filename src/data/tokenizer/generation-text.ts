import type { Tokenizer } from '../tokenizer.js';
import { TextStream } from './text-stream.js';

export interface GenerationStyle {
  /** One object a prompt. */
  readonly json: boolean;
  /** A text as it comes. */
  readonly terminal: boolean;
}

/** A message of a rank that generates. */
interface Message {
  readonly type: string;
  readonly [key: string]: unknown;
}

/** A row as a rank sends it. */
interface RowMessage extends Message {
  readonly row: number;
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly stop: string;
  readonly seconds: number;
}

/** Prints texts of the tokens that ranks send: on a terminal as they come, else whole, in the order of the prompts. */
export class GenerationText {
  readonly #tokenizer: Tokenizer;
  readonly #o: { readonly style: GenerationStyle; readonly count: number; readonly firstRow: number };
  readonly #out: NodeJS.WritableStream;
  readonly #stream: TextStream;
  readonly #waiting = new Map<number, string>();
  #next = 0;
  #openLine = false;

  /** @param options.count prompts, numbered from `firstRow` */
  constructor(
    tokenizer: Tokenizer,
    options: { readonly style: GenerationStyle; readonly count: number; readonly firstRow: number },
    out: NodeJS.WritableStream = process.stdout,
  ) {
    this.#tokenizer = tokenizer;
    this.#o = options;
    this.#out = out;
    this.#stream = new TextStream(tokenizer);
  }

  /** Takes what a rank sent. @returns what is to be printed as an event */
  shown(event: Message): Message | null {
    if (event.type === 'token') {
      this.#write(this.#stream.push(event['token'] as number));
      return null;
    }
    if (event.type !== 'row') return event;
    const { row, tokens, logprobs, stop, seconds } = event as RowMessage;
    const { style, firstRow } = this.#o;
    if (style.terminal) {
      this.#write(`${this.#stream.end()}\n`);
      return null;
    }
    const text = this.#tokenizer.decode(tokens, { skipSpecialTokens: true });
    const prompt = row - firstRow;
    if (style.json) {
      const rate = Math.round((10 * tokens.length) / seconds) / 10;
      return { type: 'generation', prompt, text, tokens, logprobs, stop, tokens_per_s: rate };
    }
    this.#inOrder(prompt, text);
    return null;
  }

  /** Ends a line that was interrupted. */
  end(): void {
    if (this.#openLine) this.#write('\n');
  }

  #inOrder(prompt: number, text: string): void {
    this.#waiting.set(prompt, this.#o.count > 1 ? `--- ${prompt + 1}\n${text}\n` : `${text}\n`);
    for (let ready = this.#waiting.get(this.#next); ready !== undefined; ready = this.#waiting.get(this.#next)) {
      this.#waiting.delete(this.#next++);
      this.#write(ready);
    }
  }

  #write(text: string): void {
    if (text === '') return;
    this.#openLine = !text.endsWith('\n');
    this.#out.write(text);
  }
}

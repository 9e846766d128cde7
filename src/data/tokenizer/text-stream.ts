import type { Tokenizer } from '../tokenizer.js';

/** What decoders write for bytes that are no character, or not yet. */
const REPLACEMENT = '\uFFFD';

/** The text of tokens as they come: no character is given before all of its bytes are there. Special tokens are no text. */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #tokens: number[] = [];
  /** Tokens before `#given` have been given as text; those from `#from` on are decoded again, for what stands before a text. */
  #from = 0;
  #given = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @returns the text that is new with this token; often none */
  push(token: number): string {
    this.#tokens.push(token);
    return this.#take(false);
  }

  /** The rest, also of a character that is not whole. */
  end(): string {
    return this.#take(true);
  }

  #take(last: boolean): string {
    const decode = (to?: number): string =>
      this.#tokenizer.decode(this.#tokens.slice(this.#from, to), { skipSpecialTokens: true });
    const [before, now] = [decode(this.#given), decode()];
    if (now.length <= before.length || (!last && now.endsWith(REPLACEMENT))) return '';
    this.#from = this.#given;
    this.#given = this.#tokens.length;
    return now.slice(before.length);
  }
}

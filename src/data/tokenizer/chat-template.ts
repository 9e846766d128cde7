import { Template } from '@huggingface/jinja';
import { MbridgeError } from '../../base/errors.js';

/** A turn of a conversation; templates read other fields too (`tool_calls`, `reasoning_content`). */
export interface ChatMessage {
  readonly role: string;
  readonly [field: string]: unknown;
}

/** What a template is rendered with, besides the messages. Further names (`enable_thinking`) are the template's own. */
export interface ChatOptions {
  /** JSON schemas of functions. */
  readonly tools?: readonly object[] | null;
  readonly documents?: readonly object[] | null;
  /** Ends with the beginning of an answer. */
  readonly add_generation_prompt?: boolean;
  readonly [name: string]: unknown;
}

/** Characters start..end-1 of a text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A rendered conversation, and where in it stands what its template marks as generated; absent without marks. */
export interface RenderedChat {
  readonly text: string;
  readonly spans?: readonly Span[];
}

const MARK = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

/** Noncharacters of Unicode: no text has them, and no filter takes them for blank. */
const [BEGIN, END] = ['\uFDD0', '\uFDD1'];

/** A chat template of a Hugging Face tokenizer, rendered as transformers does. */
export class ChatTemplate {
  readonly #where: string;
  readonly #template: Template;
  readonly #marked: boolean;
  /** bos_token and so on. */
  readonly #names: Readonly<Record<string, string>>;

  /** @throws MbridgeError MB_CHAT_TEMPLATE (exit 7) where `text` is no template */
  constructor(text: string, options: { where: string; names: Readonly<Record<string, string>> }) {
    this.#where = options.where;
    this.#names = options.names;
    this.#marked = text.search(MARK) >= 0;
    // The engine takes the marks out; each becomes a block that prints a character, which keeps what it does to blanks.
    const shown = text.replace(MARK, (_, left: string, end: string | undefined, right: string) => {
      return `{%${left} if true %}${end === undefined ? BEGIN : END}{% endif ${right}%}`;
    });
    try {
      this.#template = new Template(shown);
    } catch (cause) {
      throw this.#error('is not understood', cause);
    }
  }

  /** @throws MbridgeError MB_CHAT_TEMPLATE (exit 7) with what the template says of messages that it does not take */
  render(messages: readonly ChatMessage[], options: ChatOptions = {}): RenderedChat {
    if (this.#marked && /[\uFDD0\uFDD1]/.test(JSON.stringify([messages, options]))) {
      throw this.#error('does not take U+FDD0 and U+FDD1', 'these characters belong to no text');
    }
    let text: string;
    try {
      const fixed = { tools: null, documents: null, add_generation_prompt: false };
      text = this.#template.render({ ...fixed, ...this.#names, ...options, messages });
    } catch (cause) {
      throw this.#error('cannot render this conversation', cause);
    }
    return this.#marked ? takeMarksOut(text) : { text };
  }

  #error(found: string, cause: unknown): MbridgeError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new MbridgeError('io', 'MB_CHAT_TEMPLATE', `${this.#where}: the chat template ${found}: ${reason}`, {
      hint: 'mend the messages (roles, their order, missing fields), or the template',
      cause,
    });
  }
}

function takeMarksOut(marked: string): RenderedChat {
  const spans: Span[] = [];
  let [text, start] = ['', 0];
  for (const part of marked.split(/([\uFDD0\uFDD1])/)) {
    if (part === BEGIN) start = text.length;
    else if (part === END) spans.push({ start, end: text.length });
    else text += part;
  }
  return { text, spans: spans.filter(({ start: from, end }) => end > from) };
}

import { MbridgeError } from '../../base/errors.js';
import type { Tokenizer } from '../tokenizer.js';
import type { ChatMessage } from '../tokenizer/chat-template.js';
import { HuggingFaceTokenizer, type ChatTokens } from '../tokenizer/huggingface-tokenizer.js';
import { conversationOf } from './conversation.js';

const PROBE = 'PROBE';
const USER: ChatMessage = { role: 'user', content: 'Hi' };
const ASSISTANT: ChatMessage = { role: 'assistant', content: 'Hi' };

/** Lines of conversations to tokens, with a mask of what the assistant says. */
export class ChatTokenizer {
  readonly #tokenizer: HuggingFaceTokenizer;
  /** By role: whether the template shows what it says. */
  readonly #shown = new Map<string, boolean>([
    ['user', true],
    ['assistant', true],
  ]);

  private constructor(tokenizer: HuggingFaceTokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @throws MbridgeError MB_CHAT_TEMPLATE (exit 7) for a tokenizer without a chat template */
  static of(tokenizer: Tokenizer): ChatTokenizer {
    if (!(tokenizer instanceof HuggingFaceTokenizer)) {
      throw new MbridgeError('io', 'MB_CHAT_TEMPLATE', `the ${tokenizer.name} tokenizer has no chat template`, {
        hint: 'name a Hugging Face folder whose tokenizer has one',
      });
    }
    tokenizer.requireChatTemplate();
    return new ChatTokenizer(tokenizer);
  }

  /** The tokens of what a line says, or what is wrong with it. */
  tokens(value: unknown): ChatTokens | { readonly found: string } {
    const conversation = conversationOf(value);
    if ('found' in conversation) return conversation;
    const { messages, options } = conversation;
    const hidden = messages.find(({ role }) => !this.#shows(role));
    if (hidden !== undefined)
      return { found: `the chat template does not know the role ${JSON.stringify(hidden.role)}` };
    try {
      const made = this.#tokenizer.chatTokens(messages, options);
      return made.assistant.includes(1) ? made : { found: 'the assistant says nothing' };
    } catch (cause) {
      if (!(cause instanceof MbridgeError)) throw cause;
      return { found: `${cause.message}: ${cause.hint ?? ''}` };
    }
  }

  /** Many templates leave out what they do not know; those that refuse it do so where it stands. */
  #shows(role: string): boolean {
    let shown = this.#shown.get(role);
    if (shown === undefined) {
      const probe = { role, content: PROBE };
      shown = this.#renders(role === 'system' ? [probe, USER, ASSISTANT] : [USER, ASSISTANT, probe]);
      this.#shown.set(role, shown);
    }
    return shown;
  }

  #renders(messages: readonly ChatMessage[]): boolean {
    try {
      return this.#tokenizer.applyChatTemplate(messages).includes(PROBE);
    } catch {
      return true;
    }
  }
}

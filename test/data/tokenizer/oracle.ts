import { expect } from 'vitest';
import type { ChatMessage, ChatOptions } from '../../../src/data/tokenizer/chat-template.js';
import type { HuggingFaceTokenizer } from '../../../src/data/tokenizer/huggingface-tokenizer.js';

/** What test/oracles/make-tokenizer-fixtures.py wrote. */
export interface Expected {
  readonly vocab_size: number;
  readonly eos: number;
  readonly texts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly plain: readonly number[];
    readonly decoded: string;
    readonly skipped: string;
  }[];
  readonly chats: readonly {
    readonly name: string;
    readonly messages: readonly ChatMessage[];
    readonly options: ChatOptions;
    readonly text?: string;
    readonly ids?: readonly number[];
    readonly assistant?: readonly number[];
    readonly error?: string;
  }[];
}

/** Every text and conversation of `expected`, as transformers has it. */
export function expectAll(tokenizer: HuggingFaceTokenizer, expected: Expected): void {
  expect(tokenizer.vocabSize).toBe(expected.vocab_size);
  expect(tokenizer.endOfDocument).toBe(expected.eos);
  for (const { text, ids, plain, decoded, skipped } of expected.texts) {
    expect([...tokenizer.encode(text)], text).toEqual(ids);
    expect(tokenizer.count(text)).toBe(ids.length);
    expect([...tokenizer.encode(text, { specialTokens: false })], text).toEqual(plain);
    expect(tokenizer.decode(ids)).toBe(decoded);
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(skipped);
  }
  for (const { name, messages, options, text, ids, assistant, error } of expected.chats) {
    if (error !== undefined) {
      expect(() => tokenizer.applyChatTemplate(messages, options), name).toThrow(error);
      continue;
    }
    expect(tokenizer.applyChatTemplate(messages, options), name).toBe(text);
    if (ids === undefined) continue;
    const chat = tokenizer.chatTokens(messages, options);
    expect([...chat.ids], name).toEqual(ids);
    expect([...chat.assistant], name).toEqual(assistant);
  }
}

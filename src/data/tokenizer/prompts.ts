import { extname } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { readTextFile } from '../../base/regular-file.js';
import { badData } from '../data-error.js';
import { JsonlFile } from '../jsonl-file.js';
import type { Tokenizer } from '../tokenizer.js';
import type { ChatMessage } from './chat-template.js';
import { HuggingFaceTokenizer } from './huggingface-tokenizer.js';

/** A text to go on with, or a conversation to answer. */
export type Prompt = string | readonly ChatMessage[];

const LARGEST = 2 ** 28;
const FORMAT = 'write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]} a line';

/**
 * The prompts of a file: `{"prompt": ...}` or `{"messages": [...]}` lines of a `.jsonl`, else a prompt a line.
 * @throws MbridgeError exit 7 for a file that is none
 */
export function readPrompts(path: string): Prompt[] {
  const prompts = extname(path) === '.jsonl' ? promptsOfJsonl(path) : promptsOfText(path);
  if (prompts.length === 0) throw badData('MB_DATA_EMPTY', path, 'holds no prompts', FORMAT);
  return prompts;
}

function promptsOfText(path: string): Prompt[] {
  let text: string;
  try {
    text = readTextFile(path, LARGEST);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badData('MB_DATA_UNREADABLE', path, reason, 'name a file with a prompt a line, or a .jsonl');
  }
  return text.split(/\r?\n/).filter((line) => line !== '');
}

function promptsOfJsonl(path: string): Prompt[] {
  const file = JsonlFile.open(path);
  try {
    return Array.from({ length: file.length }, (_, line) => {
      const { prompt, messages } = file.object(line);
      if (typeof prompt === 'string') return prompt;
      if (Array.isArray(messages) && messages.length > 0) return messages as ChatMessage[];
      throw badData('MB_GENERATE_PROMPTS', file.where(line), 'has no prompt', FORMAT);
    });
  } finally {
    file.close();
  }
}

/**
 * Tokens of prompts. A text without tokens begins with the token between documents.
 * @param options.chat whether texts are what a user says, in the tokenizer's chat template; conversations always are
 * @throws MbridgeError MB_CHAT_TEMPLATE (exit 7) where a template is needed and there is none
 */
export function promptTokens(prompts: readonly Prompt[], tokenizer: Tokenizer, options: { chat: boolean }): number[][] {
  return prompts.map((prompt) => {
    if (typeof prompt === 'string' && !options.chat) {
      const ids = [...tokenizer.encode(prompt)];
      return ids.length === 0 ? [tokenizer.endOfDocument] : ids;
    }
    if (!(tokenizer instanceof HuggingFaceTokenizer)) {
      throw new MbridgeError('io', 'MB_CHAT_TEMPLATE', `the ${tokenizer.name} tokenizer has no chat template`, {
        hint: 'name a Hugging Face folder whose tokenizer has one: --tokenizer FOLDER',
      });
    }
    const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt;
    const text = tokenizer.applyChatTemplate(messages, { add_generation_prompt: true });
    return [...tokenizer.encode(text, { specialTokens: false })];
  });
}

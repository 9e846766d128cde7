import { isPlainObject } from '../../base/plain-object.js';
import type { ChatMessage, ChatOptions } from '../tokenizer/chat-template.js';

/** A line of a file of conversations. */
export interface Conversation {
  readonly messages: readonly ChatMessage[];
  readonly options: ChatOptions;
}

const FORMAT =
  'write {"messages": [{"role": "user", "content": "..."}, ...]} or {"prompt": "...", "completion": "..."}';

/** What a line says, or what is wrong with it. */
export function conversationOf(value: unknown): Conversation | { readonly found: string } {
  if (!isPlainObject(value)) return { found: `no JSON object: ${FORMAT}` };
  if (hasHalf(value)) return { found: 'a text has half a character (a lone surrogate)' };
  if (value['messages'] !== undefined) return ofMessages(value['messages'], value['tools']);
  const { prompt, completion } = value;
  if (prompt === undefined && completion === undefined) {
    return { found: `neither "messages" nor "prompt": ${FORMAT}` };
  }
  if (typeof prompt !== 'string') return { found: `"prompt" is no text: ${FORMAT}` };
  if (typeof completion !== 'string') return { found: `"completion" is no text: ${FORMAT}` };
  const said = (role: string, content: string): ChatMessage => ({ role, content });
  return ofMessages([said('user', prompt), said('assistant', completion)], value['tools']);
}

function ofMessages(messages: unknown, tools: unknown): Conversation | { readonly found: string } {
  if (!Array.isArray(messages)) return { found: `"messages" is no list: ${FORMAT}` };
  if (messages.length === 0) return { found: '"messages" is empty' };
  for (const [i, message] of messages.entries()) {
    const found = wrongWith(message);
    if (found !== undefined) return { found: `message ${i + 1}: ${found}` };
  }
  if (!messages.some(({ role }: ChatMessage) => role === 'assistant')) {
    return { found: 'the assistant says nothing: no message has the role "assistant"' };
  }
  if (tools !== undefined && tools !== null && !(Array.isArray(tools) && tools.every(isPlainObject))) {
    return { found: '"tools" is no list of objects' };
  }
  return {
    messages: messages as ChatMessage[],
    options: Array.isArray(tools) && tools.length > 0 ? { tools: tools as object[] } : {},
  };
}

function wrongWith(message: unknown): string | undefined {
  if (!isPlainObject(message)) return `is no object: ${FORMAT}`;
  const { role, content, tool_calls: calls } = message;
  if (typeof role !== 'string' || role === '') return `"role" is no text: ${FORMAT}`;
  if (typeof content === 'string' || Array.isArray(content)) return undefined;
  const callsOnly = (content === undefined || content === null) && Array.isArray(calls) && calls.length > 0;
  return callsOnly ? undefined : '"content" is no text';
}

/** Whether any text in a value has half of a surrogate pair. */
function hasHalf(value: unknown): boolean {
  if (typeof value === 'string') return /\p{Surrogate}/u.test(value);
  return typeof value === 'object' && value !== null && Object.values(value).some(hasHalf);
}

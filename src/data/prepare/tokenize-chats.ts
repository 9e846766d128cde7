import type { Block } from './blocks.js';
import type { ChatTokenizer } from './chat-tokenizer.js';
import { joined, valuesOf, type BadItem, type TokenizedBlock } from './tokenize-block.js';

/** Tokenises the conversations in the lines of a block: of each two documents, as Sidecar.content says. */
export function tokenizeChats(block: Block, chats: ChatTokenizer): TokenizedBlock {
  if (block.kind !== 'lines') throw new TypeError('conversations come in lines');
  const documents: ArrayLike<number>[] = [];
  const bad: BadItem[] = [];
  let items = 0;
  for (const line of valuesOf(block.bytes)) {
    const index = items++;
    if (line === undefined) continue;
    const made = 'value' in line ? chats.tokens(line.value) : line;
    if ('ids' in made) documents.push(made.ids, made.assistant);
    else bad.push({ index, found: made.found });
  }
  return { ...joined(documents, []), items, bad, empty: 0 };
}

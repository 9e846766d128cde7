import { parentPort, workerData } from 'node:worker_threads';
import { openTokenizer } from '../tokenizer/open-tokenizer.js';
import type { Block } from './blocks.js';
import { ChatTokenizer } from './chat-tokenizer.js';
import { tokenizeBlock, type BlockSettings, type TokenizedBlock } from './tokenize-block.js';
import { tokenizeChats } from './tokenize-chats.js';

/** What a thread is started with. */
export interface ThreadSettings extends BlockSettings {
  readonly tokenizer: string;
  readonly eod: string | undefined;
  /** Lines are conversations. */
  readonly chat: boolean;
}

export interface BlockJob {
  readonly id: number;
  readonly block: Block;
}

export interface BlockReply {
  readonly id: number;
  readonly result: TokenizedBlock;
}

const settings = workerData as ThreadSettings;
const tokenizer = openTokenizer(settings.tokenizer, { eod: settings.eod });
const chats = settings.chat ? ChatTokenizer.of(tokenizer) : undefined;

parentPort?.on('message', ({ id, block }: BlockJob) => {
  const result = chats === undefined ? tokenizeBlock(block, tokenizer, settings) : tokenizeChats(block, chats);
  const reply: BlockReply = { id, result };
  parentPort?.postMessage(reply, [result.tokens.buffer, result.lengths.buffer]);
});

import { parentPort, workerData } from 'node:worker_threads';
import { openTokenizer } from '../tokenizer/open-tokenizer.js';
import type { Block } from './blocks.js';
import { tokenizeBlock, type BlockSettings, type TokenizedBlock } from './tokenize-block.js';

/** What a thread is started with. */
export interface ThreadSettings extends BlockSettings {
  readonly tokenizer: string;
  readonly eod: string | undefined;
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

parentPort?.on('message', ({ id, block }: BlockJob) => {
  const result = tokenizeBlock(block, tokenizer, settings);
  const reply: BlockReply = { id, result };
  parentPort?.postMessage(reply, [result.tokens.buffer, result.lengths.buffer]);
});

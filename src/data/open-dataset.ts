import type { DatasetConfig, TokenizerConfig } from '../config/schema.js';
import { MbridgeError } from '../base/errors.js';
import { resolveTextPath } from './builtin-text.js';
import { ByteFile } from './byte-file.js';
import { badData } from './data-error.js';
import { closingOnError, DataFile } from './data-file.js';
import type { Dataset } from './dataset.js';
import { DocumentSamples } from './document-samples.js';
import { checkIndexed, openChat, openIndexed } from './indexed/open-indexed.js';
import type { Split } from './indexed/split.js';
import { checkPair, isPair } from './indexed/token-file.js';
import { JsonlFile } from './jsonl-file.js';
import { JsonlSamples } from './jsonl-samples.js';
import { JsonlText } from './jsonl-text.js';
import { MockDataset } from './mock-dataset.js';
import { TokenBlocks, type Tail } from './token-blocks.js';
import { createTokenizer } from './tokenizer.js';

export interface DatasetOptions {
  dataset: DatasetConfig;
  tokenizer: TokenizerConfig;
  vocabSize: number;
  seqLength: number;
  /** Of a run of tokens: left out by default. */
  tail?: Tail;
  /** The part of the documents that is read; by default train. Only `indexed` has others. */
  split?: Split;
}

/** Opens the dataset of a configuration. Throws an MbridgeError: exit 3 for settings, exit 7 for files. */
export function openDataset(options: DatasetOptions): Dataset {
  const { dataset } = options;
  if (dataset.type === 'mock' || dataset.type === 'chat') return openSamples(options, false);
  const { document_attention: attention, mask_document_starts: maskStarts } = dataset;
  const documents = attention || maskStarts;
  const samples = openSamples(options, documents);
  return documents ? new DocumentSamples(samples, { attention, maskStarts }) : samples;
}

function openSamples(options: DatasetOptions, documents: boolean): Dataset {
  const { dataset, vocabSize, seqLength, tail = 'leave', split = 'train' } = options;
  if (split !== 'train' && dataset.type !== 'indexed') {
    throw new MbridgeError('config', 'MB_DATA_SPLIT', `dataset.type ${dataset.type} has no ${split} split`, {
      hint: 'use dataset.type: indexed and dataset.split, or a file of its own',
    });
  }
  switch (dataset.type) {
    case 'mock':
      return new MockDataset({ seed: dataset.seed, vocabSize, seqLength });
    case 'indexed':
      return openIndexed(dataset, { split, tail, vocabSize, seqLength, documents });
    case 'chat':
      return openChat(dataset, { vocabSize, seqLength });
    case 'text':
      return openText(dataset.path, options);
    case 'jsonl':
      return openJsonl(dataset.path, options, documents);
    default:
      throw new MbridgeError('config', 'MB_DATA_TYPE', `dataset.type: unknown type ${JSON.stringify(dataset)}`);
  }
}

/**
 * Opens the file of a configuration and looks at its first bytes only, for whoever starts processes that open it whole.
 * @throws MbridgeError exit 3 or 7, as openDataset does
 */
export function checkDataFile(dataset: DatasetConfig): void {
  if (dataset.type === 'mock') return;
  if (dataset.type === 'indexed') return checkIndexed(dataset);
  if (dataset.type === 'chat' && isPair(dataset.path)) return checkPair(dataset.path);
  const path = dataset.type === 'text' ? resolveTextPath(dataset.path) : dataset.path;
  new DataFile(path, dataset.type === 'text' ? 'text' : 'jsonl').close();
}

/** Only the byte tokenizer passes createTokenizer, and its tokens are the file's bytes. */
function openText(path: string, options: DatasetOptions): Dataset {
  const { tokenBytes = [] } = createTokenizer(options.tokenizer, options.vocabSize);
  const file = new ByteFile(resolveTextPath(path), path, tokenBytes);
  return closingOnError(file, () => new TokenBlocks(file, options.seqLength, options.tail));
}

/** The first line decides whether a file holds tokens or text. */
function openJsonl(path: string, options: DatasetOptions, documents: boolean): Dataset {
  const file = JsonlFile.open(path);
  return closingOnError(file, () => {
    if (file.length === 0)
      throw badData('MB_DATA_EMPTY', path, 'holds no samples', 'give a file with at least one line');
    const first = file.object(0);
    if ('input_ids' in first) {
      const samples = new JsonlSamples(file, { ...options, documents });
      samples.check();
      return samples;
    }
    if (!('text' in first)) {
      const found = `neither "input_ids" nor "text"; keys: ${Object.keys(first).slice(0, 8).join(', ') || 'none'}`;
      throw badData('MB_DATA_SAMPLE', file.where(0), found, 'write {"input_ids": [...]} or {"text": "..."} a line');
    }
    const tokenizer = createTokenizer(options.tokenizer, options.vocabSize);
    return new TokenBlocks(new JsonlText(file, tokenizer), options.seqLength, options.tail, documents);
  });
}

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { TOGETHER } from './helpers.js';
import type { DatasetConfig } from '../../src/config/schema.js';
import type { Dataset } from '../../src/data/dataset.js';
import { IndexedWriter } from '../../src/data/indexed/indexed-writer.js';
import type { Split } from '../../src/data/indexed/split.js';
import { openDataset } from '../../src/data/open-dataset.js';

const FOLDER = join(import.meta.dirname, '../../fixtures/megatron');

/** Pairs that test/oracles/megatron-pair.py wrote from the description of the format. */
export const oraclePair = (name: string): string => join(FOLDER, name);

/** By the name of a pair its documents, each a list of sequences of tokens. */
export const oracleDocuments = JSON.parse(readFileSync(join(FOLDER, 'documents.json'), 'utf8')) as Record<
  string,
  number[][][]
>;

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-pairs-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function writePair(prefix: string, documents: readonly (readonly number[])[]): Promise<string> {
  const writer = IndexedWriter.create(prefix, { dtype: 'int32' });
  for (const tokens of documents) writer.add(Int32Array.from(tokens));
  await writer.commit();
  return prefix;
}

/** Documents whose tokens count on from `first`, of uneven lengths. */
export function countingDocuments(count: number, first = 0): number[][] {
  let next = first;
  return Array.from({ length: count }, (_, d) => Array.from({ length: (d * 7) % 23 }, () => next++));
}

type Indexed = Extract<DatasetConfig, { type: 'indexed' }>;

export function openIndexed(
  config: Partial<Indexed>,
  {
    seqLength = 8,
    vocabSize = 1 << 20,
    split = 'train',
  }: { seqLength?: number; vocabSize?: number; split?: Split } = {},
): Dataset {
  const base = { type: 'indexed', path: null, blend: null, split: '1', shuffle: true, seed: 3, ...TOGETHER } as const;
  const given: Indexed = { ...base, ...config };
  const opened = openDataset({ dataset: given, tokenizer: { type: 'byte' }, vocabSize, seqLength, split });
  onTestFinished(() => opened.close());
  return opened;
}

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { DatasetConfig } from '../../src/config/schema.js';
import type { Dataset } from '../../src/data/dataset.js';
import { pack } from '../../src/data/indexed/pack.js';
import { openDataset } from '../../src/data/open-dataset.js';
import { SampleBatches } from '../../src/data/sample-batches.js';
import { mbridgeError, tempFile } from './helpers.js';
import { countingDocuments, openIndexed, temporaryFolder, writePair } from './pairs.js';

const APART = { document_attention: true, mask_document_starts: true };

function open(type: 'jsonl' | 'text', content: string, options = APART, seqLength = 4): Dataset {
  const dataset: DatasetConfig = { type, path: tempFile(`a.${type}`, content), shuffle: false, seed: 1, ...options };
  return openDataset({ dataset, tokenizer: { type: 'byte' }, vocabSize: 256, seqLength, tail: 'pad' });
}

const read = (dataset: Dataset, index: number) => {
  const { inputIds, lossMask, begins } = dataset.sample(index);
  return { ids: [...inputIds], mask: lossMask && [...lossMask], begins: begins && [...begins] };
};

describe('where documents begin', () => {
  it.each([true, false])('is known in token files, shuffled or not (%s)', async (shuffle) => {
    const documents = countingDocuments(40);
    // Every token is there once, so that a document's first tells where it begins.
    const firsts = new Set(documents.filter(({ length }) => length > 0).map(([first]) => first));
    const path = await writePair(join(temporaryFolder(), 'a'), documents);
    const dataset = openIndexed({ path, shuffle, ...APART });
    for (let k = 0; k < 3 * dataset.length; k++) {
      const { ids, mask, begins } = read(dataset, k);
      expect(begins).toEqual(ids.map((id) => Number(firsts.has(id))));
      expect(mask).toEqual(ids.map((id, j) => Number(j > 0 && !firsts.has(id))));
    }
  });

  it('is after the separator in lines of texts, and in those of tokens where they say', () => {
    const texts = open('jsonl', '{"text": "ab"}\n{"text": ""}\n{"text": "cd"}\n{"text": "e"}\n');
    expect(read(texts, 0)).toEqual({ ids: [97, 98, 255, 99, 100], mask: [0, 1, 1, 0, 1], begins: [1, 0, 0, 1, 0] });
    expect(read(texts, 1)).toEqual({ ids: [100, 255, 101, 0, 0], mask: [0, 1, 0, 0, 0], begins: [0, 0, 1, 0, 0] });
    const tokens = open(
      'jsonl',
      '{"input_ids": [1, 2, 3, 4, 5], "loss_mask": [0, 1, 0, 1, 1], "document_starts": [0, 3]}\n{"input_ids": [1, 2, 3, 4, 5]}\n',
    );
    expect(read(tokens, 0)).toMatchObject({ mask: [0, 1, 0, 0, 1], begins: [1, 0, 0, 1, 0] });
    expect(read(tokens, 1)).toMatchObject({ mask: [0, 1, 1, 1, 1], begins: [1, 0, 0, 0, 0] });
    expect(read(open('text', 'abcdef'), 1)).toMatchObject({ begins: undefined });
  });

  it('may change the loss alone, or attention alone', () => {
    const lines = '{"text": "ab"}\n{"text": "cd"}\n';
    const masked = read(open('jsonl', lines, { ...APART, document_attention: false }), 0);
    expect(masked).toMatchObject({ mask: [0, 1, 1, 0, 1], begins: undefined });
    const apart = read(open('jsonl', lines, { ...APART, mask_document_starts: false }), 0);
    expect(apart).toMatchObject({ mask: undefined, begins: [1, 0, 0, 1, 0] });
  });

  it('makes positions begin anew, also where the memory is used again', () => {
    const lines = ['[0, 2]', '[0]', '[3, 4]'].map(
      (starts) => `{"input_ids": [1,2,3,4,5], "document_starts": ${starts}}\n`,
    );
    const dataset = open('jsonl', lines.join(''));
    const batches = new SampleBatches({ count: 1, microBatchSize: 2, seqLength: 4, vocabSize: 256 });
    const positions = (first: number): number[] => [
      ...batches.fill((k) => (k < 1 ? dataset.sample(first) : null))[0]!.positions,
    ];
    expect(positions(0)).toEqual([0, 1, 0, 1, 0, 1, 2, 3]);
    expect(positions(1)).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
    expect(positions(2)).toEqual([0, 1, 2, 0, 0, 1, 2, 3]);
  });

  it.each([
    ['3', '"document_starts" is not a list'],
    ['[0, 5]', '"document_starts" has 5'],
    ['["1"]', '"document_starts" has "1"'],
  ])('a line with %s is refused', async (starts, message) => {
    const error = await mbridgeError(() =>
      open('jsonl', `\n{"input_ids": [1,2,3,4,5], "document_starts": ${starts}}\n`),
    );
    expect(error).toMatchObject({ code: 'MB_DATA_SAMPLE', exitCode: 7 });
    expect(error.message).toContain(`a.jsonl:2: ${message}`);
  });
});

describe('packing', () => {
  const packsOf = (lengths: number[], room: number): number[][] => {
    const { starts, items } = pack(lengths, room);
    return Array.from({ length: starts.length - 1 }, (_, i) => [...items.subarray(starts[i], starts[i + 1])]);
  };

  it.each([
    [[5, 5, 5], 5, [[0], [1], [2]]],
    [
      [1, 4, 2, 3],
      5,
      [
        [1, 0],
        [3, 2],
      ],
    ],
    [[40, 70, 33, 64, 31], 100, [[1], [3, 2], [0, 4]]],
    [[], 5, []],
  ])('puts %j into %i', (lengths, room, expected) => {
    expect(packsOf(lengths, room)).toEqual(expected);
  });

  it('loses nothing, overfills nothing, and leaves little room', () => {
    const lengths = Array.from({ length: 5000 }, (_, i) => 1 + ((i * 7919) % 613));
    const packs = packsOf(lengths, 1000);
    const sums = packs.map((pieces) => pieces.reduce((sum, i) => sum + lengths[i]!, 0));
    expect(packs.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
    expect(Math.max(...sums)).toBeLessThanOrEqual(1000);
    expect(sums.reduce((a, b) => a + b, 0) / (1000 * packs.length)).toBeGreaterThan(0.98);
  });
});

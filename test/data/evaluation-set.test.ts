import { expect, test } from 'vitest';
import type { Dataset } from '../../src/data/dataset.js';
import { EvaluationSet } from '../../src/data/evaluation-set.js';
import { openDataset } from '../../src/data/open-dataset.js';
import { SampleOrder } from '../../src/data/sample-order.js';
import { tempFile, TOGETHER } from './helpers.js';

const SIZES = { vocabSize: 300, seqLength: 2 };

/** Sample i is the tokens i + 1, 0, 0. */
function numbered(length: number): Dataset {
  return {
    length,
    sample: (index) => ({ inputIds: Int32Array.of(index + 1, 0, 0) }),
    describe: () => 'numbered',
    close: () => undefined,
  };
}

test.each([
  { length: 10, samples: 7, gbs: 4, mbs: 2, dp: 2 },
  { length: 10, samples: null, gbs: 4, mbs: 1, dp: 4 },
  { length: 3, samples: null, gbs: 8, mbs: 2, dp: 2 },
  { length: 8, samples: 8, gbs: 4, mbs: 4, dp: 1 },
  { length: 1, samples: 1, gbs: 6, mbs: 1, dp: 3 },
])('every sample counts once: $samples of $length in batches of $gbs on $dp replicas', (c) => {
  const read = (seed: number | undefined): number[] => {
    const seen: number[] = [];
    for (let dpRank = 0; dpRank < c.dp; dpRank++) {
      const set = new EvaluationSet({
        ...{ name: 'a', dataset: numbered(c.length), order: new SampleOrder(c.length, seed), samples: c.samples },
        ...{ dpRank, dpSize: c.dp, ...SIZES, globalBatchSize: c.gbs, microBatchSize: c.mbs },
      });
      let batches = 0;
      for (const batch of set.batches()) {
        batches++;
        expect(batch).toHaveLength(c.gbs / (c.mbs * c.dp));
        for (const { tokens, mask, order } of batch) {
          expect([...order].sort((a, b) => a - b)).toEqual(Array.from(tokens, (_, i) => i));
          for (let i = 0; i < tokens.length; i += SIZES.seqLength) {
            const counted = mask[i] === 1 && mask[i + 1] === 1;
            expect(counted).toBe(tokens[i] !== 0);
            if (counted) seen.push(tokens[i]! - 1);
          }
        }
      }
      expect(batches).toBe(Math.ceil((c.samples ?? c.length) / c.gbs));
    }
    return seen.sort((a, b) => a - b);
  };
  const samples = c.samples ?? c.length;
  expect(read(undefined)).toEqual(Array.from({ length: samples }, (_, i) => i));
  expect(new Set(read(7)).size).toBe(samples);
});

test.each([
  ['a text', 'text', 'aé!', 3],
  ['documents: the separator is no text', 'jsonl', '{"text": "ab"}\n{"text": "é"}\n', 3],
  ['tokens', 'jsonl', '{"input_ids": [1, 2, 3]}\n', null],
] as const)('bytes of %s', (_, type, content, bytes) => {
  const path = tempFile(`data.${type === 'text' ? 'txt' : type}`, content);
  const section = { type, path, shuffle: false, seed: 1, ...TOGETHER };
  const dataset = openDataset({ dataset: section, tokenizer: { type: 'byte' }, ...SIZES, tail: 'pad' });
  const set = new EvaluationSet({
    ...{ name: 'a', dataset, order: new SampleOrder(dataset.length, undefined), samples: null },
    ...{ dpRank: 0, dpSize: 1, ...SIZES, globalBatchSize: 4, microBatchSize: 1 },
  });
  // The first byte is never predicted.
  expect(set.bytes()).toBe(bytes);
  set.close();
});

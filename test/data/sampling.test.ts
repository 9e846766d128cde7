import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { DataIterator } from '../../src/data/data-iterator.js';
import { Permutation } from '../../src/data/permutation.js';
import { SampleOrder } from '../../src/data/sample-order.js';
import { setupDataIterators } from '../../src/data/setup-data-iterators.js';
import { tokenSorter } from '../../src/data/token-order.js';
import type { DatasetConfig } from '../../src/config/schema.js';
import { tempFile, TOGETHER } from './helpers.js';

const range = (n: number): number[] => [...Array(n).keys()];

describe('Permutation', () => {
  it.each([1, 2, 3, 4, 5, 63, 64, 65, 1000, 4097])('is a bijection of %i', (length) => {
    const permutation = new Permutation(length, 1234, 0);
    const seen = new Set(range(length).map((i) => permutation.at(i)));
    expect([...seen].sort((a, b) => a - b)).toEqual(range(length));
  });

  it('changes with seed and epoch, and leaves hardly anything in place', () => {
    const orders = [new Permutation(1000, 1, 0), new Permutation(1000, 1, 1), new Permutation(1000, 2, 0)].map((p) =>
      range(1000).map((i) => p.at(i)),
    );
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ] as const) {
      expect(orders[a]!.filter((x, i) => x === orders[b]![i]).length).toBeLessThan(10);
    }
    for (const order of orders) expect(order.filter((x, i) => x === i).length).toBeLessThan(10);
  });

  it('sends each place to each other place about equally often', () => {
    const length = 10;
    const counts = new Float64Array(length * length);
    for (let seed = 0; seed < 4000; seed++) {
      const permutation = new Permutation(length, seed, 3);
      for (let i = 0; i < length; i++) counts[i * length + permutation.at(i)]!++;
    }
    const chi = counts.reduce((sum, count) => sum + (count - 400) ** 2 / 400, 0);
    // 81 degrees of freedom: standard deviation 12.7.
    expect(Math.abs(chi - 81)).toBeLessThan(5 * 12.7);
  });

  it('reaches indexes past 2^32', () => {
    const length = 2 ** 40;
    const permutation = new Permutation(length, 1, 0);
    const images = range(1000).map((i) => permutation.at(i));
    expect(new Set(images).size).toBe(1000);
    expect(Math.max(...images)).toBeGreaterThan(length / 2);
    for (const image of images) expect(image >= 0 && image < length && Number.isInteger(image)).toBe(true);
  });
});

describe('SampleOrder', () => {
  it('starts again at the end and counts epochs', () => {
    const order = new SampleOrder(3, undefined);
    expect(range(7).map((i) => order.at(i))).toEqual(
      [0, 1, 2, 3, 4, 5, 6].map((i) => ({ epoch: Math.floor(i / 3), index: i % 3 })),
    );
  });

  it('shuffled: every epoch holds every sample once, in another order, from any place', () => {
    const order = new SampleOrder(50, 9);
    const epochs = [0, 1, 2].map((epoch) => range(50).map((i) => order.at(epoch * 50 + i).index));
    for (const epoch of epochs) expect([...epoch].sort((a, b) => a - b)).toEqual(range(50));
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(new SampleOrder(50, 9).at(117)).toEqual({ epoch: 2, index: epochs[2]![17] });
  });
});

describe('tokenSorter', () => {
  it.each([
    [1, 1],
    [100, 2],
    [1000, 256],
    [1000, 2048],
    [1000, 2049],
    [4096, 151936],
    [500, 2 ** 22 + 1],
    [500, 2 ** 31 - 1],
  ])('sorts %i tokens of a vocabulary of %i, stably', (n, vocabSize) => {
    const tokens = Int32Array.from(
      range(n),
      (i) => ((i * 7919) % 97) * Math.floor(vocabSize / 97) + (i % 3 ? 0 : vocabSize % 97),
    );
    for (const i of tokens.keys()) tokens[i] = Math.min(tokens[i]!, vocabSize - 1);
    tokens[0] = vocabSize - 1;
    const order = new Int32Array(n);
    const sort = tokenSorter(n, vocabSize);
    for (let repeat = 0; repeat < 2; repeat++) {
      sort(tokens, order);
      expect([...order]).toEqual(range(n).sort((a, b) => tokens[a]! - tokens[b]! || a - b));
      tokens.reverse();
    }
  });
});

describe('setupDataIterators', () => {
  const seqLength = 40;
  const path = join(import.meta.dirname, '../../fixtures/qwen3-masked/tokens.jsonl');
  const samples = readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { input_ids: number[]; loss_mask: number[] });

  async function iterator(
    layout: { dp?: [number, number]; micro?: number; shuffle?: boolean; path?: string },
    rest: { consumedSamples?: number; startStep?: number; globalBatchSize?: number } = {},
  ): Promise<DataIterator> {
    const dataset: DatasetConfig = {
      type: 'jsonl',
      path: layout.path ?? path,
      shuffle: layout.shuffle ?? false,
      seed: 5,
      ...TOGETHER,
    };
    const [rank, size] = layout.dp ?? [0, 1];
    const data = await setupDataIterators(
      { dataset, tokenizer: { type: 'byte' } },
      {
        dpGroup: { rank, size },
        vocabSize: 320,
        seqLength,
        globalBatchSize: 8,
        microBatchSize: layout.micro ?? 1,
        ...rest,
      },
    );
    onTestFinished(() => data.close());
    return data;
  }
  const tokensOf = (data: DataIterator, step: number): number[][] =>
    data.next(step).flatMap((batch) => {
      const rows = batch.tokens.length / seqLength;
      return range(rows).map((row) => [...batch.tokens.subarray(row * seqLength, (row + 1) * seqLength)]);
    });
  const inFile = (from: number, count = 8): number[][] =>
    range(count).map((k) => samples[(from + k) % samples.length]!.input_ids.slice(0, -1));

  it('fills tokens, targets, mask, order and positions', async () => {
    const data = await iterator({ micro: 2 });
    expect(data.count).toBe(4);
    data.next(2).forEach((batch, m) => {
      const pair = [samples[8 + 2 * m]!, samples[8 + 2 * m + 1]!];
      expect([...batch.tokens]).toEqual(pair.flatMap((s) => s.input_ids.slice(0, -1)));
      expect([...batch.targets]).toEqual(pair.flatMap((s) => s.input_ids.slice(1)));
      expect([...batch.mask]).toEqual(pair.flatMap((s) => s.loss_mask.slice(1)));
      expect([...batch.positions]).toEqual([...range(seqLength), ...range(seqLength)]);
      expect([...batch.order]).toEqual(range(80).sort((a, b) => batch.tokens[a]! - batch.tokens[b]! || a - b));
    });
  });

  it.each([
    [1, 1, false],
    [1, 8, false],
    [2, 2, false],
    [4, 1, false],
    [4, 2, true],
    [8, 1, true],
    [2, 4, true],
  ])(
    'dp %i, micro-batch %i, shuffle %s: the samples of an update are those of one process',
    async (dp, micro, shuffle) => {
      const alone = await iterator({ shuffle });
      const replicas = await Promise.all(range(dp).map((rank) => iterator({ dp: [rank, dp], micro, shuffle })));
      for (const step of [1, 2, 12, 13, 30]) {
        expect(replicas.flatMap((data) => tokensOf(data, step))).toEqual(tokensOf(alone, step));
      }
    },
  );

  it('reads file order by (n-1)*batch + k, and starts again', async () => {
    const data = await iterator({});
    for (const step of [1, 5, 12, 13]) expect(tokensOf(data, step)).toEqual(inFile((step - 1) * 8));
    expect([1, 12, 13, 24, 25].map((step) => data.epoch(step))).toEqual([0, 0, 1, 1, 2]);
  });

  it.each<[string, Parameters<typeof iterator>[1], number, number]>([
    ['consumed samples alone', { consumedSamples: 48 }, 7, 48],
    ['another batch from there on', { consumedSamples: 48, startStep: 4, globalBatchSize: 4 }, 5, 52],
    ['start step alone', { startStep: 3 }, 3, 16],
  ])('resumes from %s', async (_, rest, step, first) => {
    const data = await iterator({}, rest);
    expect(data.consumedBefore(step)).toBe(first);
    expect(tokensOf(data, step)).toEqual(inFile(first, rest?.globalBatchSize ?? 8));
  });

  it('resets the mask after a sample that had one', async () => {
    const ids = samples[0]!.input_ids;
    const lines = [{ input_ids: ids, loss_mask: ids.map(() => 0) }, { input_ids: ids }];
    const mixed = tempFile('mixed.jsonl', lines.map((line) => JSON.stringify(line)).join('\n'));
    const data = await iterator({ path: mixed });
    expect(data.next(1).map((batch) => batch.mask[0])).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
  });
});

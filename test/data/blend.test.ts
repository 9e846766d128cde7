import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BlendOrder } from '../../src/data/indexed/blend-order.js';
import { countingDocuments, openIndexed, oraclePair, temporaryFolder, writePair } from './pairs.js';

describe('the order of a blend', () => {
  it.each<[number[], number]>([
    [[0.7, 0.3], 0.5],
    [[0.5, 0.5], 0.5],
    [[1, 999], 0.5],
    [[123456789, 987654321], 0.5],
    [[1, 1, 1], 1],
    [[0.6, 0.3, 0.1], 1],
    [[5, 4, 3, 2, 1, 0.5, 0.25], 1.5],
    [Array.from({ length: 40 }, (_, i) => 1 / (i + 1)), 1.5],
  ])('%j: each source is within %d samples of its share at every place', (weights, most) => {
    const order = new BlendOrder(weights);
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const counts = weights.map(() => 0);
    let farthest = 0;
    for (let n = 0; n < 20_000; n++) {
      const { source, index } = order.at(n);
      expect(index).toBe(counts[source]!++);
      for (const [i, weight] of weights.entries()) {
        farthest = Math.max(farthest, Math.abs(counts[i]! - ((n + 1) * weight) / sum));
      }
    }
    expect(farthest).toBeLessThanOrEqual(most + 1e-9);
    expect(order.counts(20_000)).toEqual(counts);
  });

  it('goes to any place at once', () => {
    const order = new BlendOrder([0.7, 0.3]);
    const far = 10 ** 12;
    const counts = order.counts(far);
    expect(counts).toEqual([0.7 * far, 0.3 * far]);
    for (let n = far; n < far + 1000; n++) {
      const { source, index } = order.at(n);
      expect(index).toBe(counts[source]!++);
    }
  });
});

describe('a blend', () => {
  it('reads each source through its own epochs', async () => {
    const folder = temporaryFolder();
    const a = await writePair(join(folder, 'a'), countingDocuments(60));
    const b = await writePair(join(folder, 'b'), countingDocuments(20, 100_000));
    const blend = openIndexed({
      blend: [
        { path: a, weight: 7 },
        { path: b, weight: 3 },
      ],
    });
    const alone = [a, b].map((path) => openIndexed({ path }));
    expect(blend.length).toBe(Infinity);
    const counts = [0, 0];
    for (let k = 0; k < 200; k++) {
      const sample = [...blend.sample(k).inputIds];
      const source = sample[0]! >= 100_000 ? 1 : 0;
      expect(sample).toEqual([...alone[source]!.sample(counts[source]!++).inputIds]);
    }
    expect(blend.progress!(200)).toEqual(
      [a, b].map((path, i) => ({
        path,
        share: [0.7, 0.3][i],
        samples: counts[i],
        epochs: counts[i]! / alone[i]!.length,
      })),
    );
    expect(counts).toEqual([140, 60]);
    expect(blend.epoch!(200)).toBe(Math.floor(Math.min(...counts.map((count, i) => count / alone[i]!.length))));
    expect(blend.describe()).toMatch(/^blend: 70\.00 % of .*a: 60 of 60 documents.*; 30\.00 % of .*b: 20 of 20/);
    expect(blend.fingerprint!()!.files.map(({ path }) => path)).toEqual(
      [a, b].flatMap((p) => [`${p}.idx`, `${p}.bin`]),
    );
  });

  it('closes what it has opened where a later source fails', () => {
    const blend = [
      { path: oraclePair('int32'), weight: 1 },
      { path: oraclePair('none'), weight: 1 },
    ];
    expect(() => openIndexed({ blend })).toThrow(/none\.idx: no such file, nor .*none\.bin/);
  });
});

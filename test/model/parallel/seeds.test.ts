import { describe, expect, it } from 'vitest';
import { philox4x32, PhiloxStream } from '../../../src/model/parallel/philox.js';
import { modelParallelManualSeed, type RngStreams } from '../../../src/model/parallel/seeds.js';

function throwing(code: string): unknown {
  return expect.objectContaining({ code: `MB_RNG_${code}`, exitCode: 3 });
}

function draws(stream: PhiloxStream, count = 5): number[] {
  return Array.from({ length: count }, () => stream.uint32());
}

describe('philox4x32', () => {
  // Known answers of the Random123 library (kat_vectors, philox4x32 with 10 rounds).
  it.each([
    ['00000000 00000000 00000000 00000000', '00000000 00000000', '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
    ['ffffffff ffffffff ffffffff ffffffff', 'ffffffff ffffffff', '408f276d 41c83b0e a20bc7c6 6d5451fd'],
    ['243f6a88 85a308d3 13198a2e 03707344', 'a4093822 299f31d0', 'd16cfe09 94fdcceb 5001e420 24126ea1'],
  ])('of counter %s and key %s', (counter, key, expected) => {
    const words = (text: string): number[] => text.split(' ').map((word) => parseInt(word, 16));
    expect(philox4x32(words(counter), words(key))).toEqual(words(expected));
  });
});

describe('PhiloxStream', () => {
  it('goes through blocks, and continues from a saved state', () => {
    const stream = new PhiloxStream(2 ** 32 + 7);
    const words = draws(stream, 8);
    expect(words).toEqual([...philox4x32([0, 0, 0, 0], [7, 1]), ...philox4x32([1, 0, 0, 0], [7, 1])]);
    for (let drawn = 0; drawn < 8; drawn++) {
      const other = new PhiloxStream(0);
      other.state = JSON.parse(JSON.stringify({ seed: 2 ** 32 + 7, drawn })) as { seed: number; drawn: number };
      expect(draws(other, 8 - drawn)).toEqual(words.slice(drawn));
    }
    expect(() => (stream.state = { seed: 1, drawn: -1 })).toThrow(RangeError);
    expect(() => new PhiloxStream(0.5)).toThrow(RangeError);
  });

  it('is uniform and normal', () => {
    const stream = new PhiloxStream(1234);
    const mean = (values: number[]): number => values.reduce((a, b) => a + b) / values.length;
    const uniform = Array.from({ length: 20000 }, () => stream.uniform());
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
    expect(mean(uniform)).toBeCloseTo(0.5, 2);
    const normal = Array.from({ length: 20000 }, () => stream.normal());
    expect(Math.abs(mean(normal))).toBeLessThan(0.03);
    expect(mean(normal.map((x) => x * x))).toBeCloseTo(1, 1);
    expect(mean(normal.map((x) => x ** 4))).toBeGreaterThan(2.7);
  });
});

describe('modelParallelManualSeed', () => {
  // Megatron-Core's seeds for seed 1234 on [tp 2, cp 1, dp 2, pp 2]: data-, model- and expert-parallel.
  it.each([
    { rank: 0, options: { tpRank: 0, ppRank: 0 }, seeds: [1234, 3952, 2258] },
    { rank: 1, options: { tpRank: 1, ppRank: 0 }, seeds: [1234, 3953, 2259] },
    { rank: 2, options: { tpRank: 0, ppRank: 0, dpRank: 1 }, seeds: [1234, 3952, 2258] },
    { rank: 4, options: { tpRank: 0, ppRank: 1 }, seeds: [1334, 4052, 2358] },
    { rank: 5, options: { tpRank: 1, ppRank: 1 }, seeds: [1334, 4053, 2359] },
    { rank: 5, options: { tpRank: 1, ppRank: 1, etpRank: 0 }, seeds: [1334, 4053, 2358] },
    { rank: 5, options: { tpRank: 1, ppRank: 1, epRank: 3 }, seeds: [1334, 4053, 2659] },
    { rank: 2, options: { tpRank: 0, ppRank: 0, dpRank: 1, dataParallelRandomInit: true }, seeds: [1244, 3962, 2268] },
  ])('gives rank $rank the seeds $seeds', ({ options, seeds }) => {
    const rng = modelParallelManualSeed({ seed: 1234, ...options });
    const names = ['data-parallel-rng', 'model-parallel-rng', 'expert-parallel-rng'];
    expect(rng.names).toEqual(names);
    expect(names.map((name) => rng.stream(name).seed)).toEqual(seeds);
  });

  it.each([
    [{ seed: 0, tpRank: 0, ppRank: 0 }, 'SEED'],
    [{ seed: 1.5, tpRank: 0, ppRank: 0 }, 'SEED'],
    [{ seed: 1, tpRank: -1, ppRank: 0 }, 'RANK'],
    [{ seed: 1, tpRank: 6, ppRank: 0, epRank: 17, etpRank: 0 }, 'DUPLICATE_SEED'],
  ])('refuses %o', (options, code) => {
    expect(() => modelParallelManualSeed(options)).toThrow(throwing(code));
  });
});

describe('RngStreams', () => {
  const made = (): RngStreams => modelParallelManualSeed({ seed: 1234, tpRank: 0, ppRank: 0 });
  const [data, a, b] = ['data-parallel-rng', 'model-parallel-rng', 'expert-parallel-rng'] as const;

  it('draws from the data-parallel stream outside forks, and from the fork’s inside', () => {
    const rng = made();
    const expected = [1234, 3952, 1234].map((seed) => new PhiloxStream(seed));
    expect(draws(rng.current)).toEqual(draws(expected[0]!));
    expect(rng.fork(a, (stream) => draws(stream))).toEqual(draws(expected[1]!));
    expect(draws(rng.current)).toEqual(draws(expected[0]!));
    expect(rng.stream(data).state).toEqual({ seed: 1234, drawn: 10 });
  });

  it('gives nested forks the streams of separate ones', () => {
    const nested = made();
    const fromNested = nested.fork(a, () => {
      const one = draws(nested.current);
      const two = nested.fork(b, () => [
        ...draws(nested.current),
        ...nested.fork(a, () => draws(nested.current)),
        ...draws(nested.current),
      ]);
      return [...one, ...two, ...draws(nested.current)];
    });
    const separate = made();
    const fromSeparate = [a, b, a, b, a].flatMap((name) => separate.fork(name, () => draws(separate.current)));
    expect(fromNested).toEqual(fromSeparate);
    expect(nested.save()).toEqual(separate.save());
  });

  it('returns to the outer stream when a fork throws', () => {
    const rng = made();
    const fail = (): never => {
      throw new Error('inside');
    };
    expect(() => rng.fork(a, fail)).toThrow('inside');
    expect(rng.current).toBe(rng.stream(data));
  });

  it('refuses asynchronous forks, unknown names, equal names and equal seeds', () => {
    const rng = made();
    expect(() => rng.fork(a, () => Promise.resolve(1))).toThrow(throwing('ASYNC'));
    expect(() => rng.fork('dropout', () => 1)).toThrow(throwing('UNKNOWN'));
    expect(() => rng.stream('dropout')).toThrow(throwing('UNKNOWN'));
    expect(() => rng.add(a, 1)).toThrow(throwing('DUPLICATE_NAME'));
    expect(() => rng.add('dropout', 1234)).toThrow(throwing('DUPLICATE_SEED'));
    expect(() => rng.add('dropout', -1)).toThrow(throwing('SEED'));
    rng.add('dropout', 1);
    expect(rng.names).toContain('dropout');
  });

  it('goes on after save and restore through JSON as if nothing had happened', () => {
    const rng = made();
    rng.fork(a, (stream) => draws(stream, 3));
    draws(rng.current, 6);
    const saved = JSON.stringify(rng.save());
    const expected = [a, b, data].map((name) => draws(rng.stream(name)));
    const other = modelParallelManualSeed({ seed: 99, tpRank: 1, ppRank: 1 });
    other.restore(JSON.parse(saved) as ReturnType<RngStreams['save']>);
    expect([a, b, data].map((name) => draws(other.stream(name)))).toEqual(expected);
    expect(() => other.restore({ [a]: { seed: 1, drawn: 0 } })).toThrow(throwing('STATE'));
  });
});

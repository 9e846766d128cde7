import { describe, expect, it } from 'vitest';
import { balanceStages, interleavedStageLayers, stageLayers } from '../../../src/model/pipeline/stages.js';

/** Qwen3-4B per token at a sequence length, by the FLOP formula of Megatron-Core (layer and head, forward + backward). */
function qwen3FourB(sequence: number) {
  const [hidden, ffn, q, kv, vocab] = [2560, 9728, 4096, 1024, 151936];
  return {
    numLayers: 36,
    layerFlops: 6 * hidden * (q + 2 * kv) + 6 * q * hidden + 18 * hidden * ffn + 6 * q * sequence,
    headFlops: 6 * hidden * vocab,
    embeddingFlops: 0,
  };
}

const even = { layerFlops: 1, headFlops: 0, embeddingFlops: 0 };

describe('balanceStages', () => {
  it.each([
    { name: 'Qwen3-4B at 4096', request: { ...qwen3FourB(4096), stages: 2 }, layers: [20, 16] },
    { name: 'Qwen3-4B at 1024', request: { ...qwen3FourB(1024), stages: 2 }, layers: [20, 16] },
    { name: 'Qwen3-4B on four stages', request: { ...qwen3FourB(4096), stages: 4 }, layers: [10, 10, 10, 6] },
    { name: 'one stage', request: { ...even, numLayers: 7, stages: 1 }, layers: [7] },
    { name: 'ties early', request: { ...even, numLayers: 9, stages: 4 }, layers: [3, 2, 2, 2] },
    { name: 'a stage a layer', request: { ...even, numLayers: 3, stages: 3 }, layers: [1, 1, 1] },
    { name: 'a head dearer than all', request: { ...even, headFlops: 99, numLayers: 5, stages: 3 }, layers: [2, 2, 1] },
    {
      name: 'embedding and head',
      request: { ...even, embeddingFlops: 1, headFlops: 2, numLayers: 9, stages: 3 },
      layers: [3, 4, 2],
    },
    { name: 'first by hand', request: { ...even, numLayers: 10, stages: 4, first: 1 }, layers: [1, 3, 3, 3] },
    { name: 'last by hand', request: { ...even, numLayers: 10, stages: 3, last: 1 }, layers: [5, 4, 1] },
    { name: 'both by hand', request: { ...even, numLayers: 10, stages: 4, first: 1, last: 2 }, layers: [1, 4, 3, 2] },
    { name: 'all by hand', request: { ...even, numLayers: 10, stages: 2, first: 3, last: 7 }, layers: [3, 7] },
  ])('gives $layers for $name', ({ request, layers }) => {
    expect(balanceStages(request)).toEqual(layers);
  });

  it('is never beaten by any other split', () => {
    const splits = (layers: number, stages: number): number[][] =>
      stages === 1
        ? [[layers]]
        : Array.from({ length: layers - stages + 1 }, (_, i) => i + 1).flatMap((head) =>
            splits(layers - head, stages - 1).map((rest) => [head, ...rest]),
          );
    for (const stages of [1, 2, 3, 4]) {
      for (const numLayers of [4, 5, 7, 10]) {
        for (const headFlops of [0, 0.5, 3.3, 20]) {
          for (const embeddingFlops of [0, 1.25]) {
            const request = { numLayers, stages, layerFlops: 1, headFlops, embeddingFlops };
            const worst = (split: number[]): number =>
              Math.max(...split.map((n, s) => n + (s === 0 ? embeddingFlops : 0) + (s === stages - 1 ? headFlops : 0)));
            const best = Math.min(...splits(numLayers, stages).map(worst));
            const split = balanceStages(request);
            expect(split.reduce((a, b) => a + b)).toBe(numLayers);
            expect(worst(split), JSON.stringify(request)).toBe(best);
          }
        }
      }
    }
  });

  it.each([
    [{ numLayers: 3, stages: 4 }, 'MB_STAGES_TOO_MANY'],
    [{ numLayers: 0, stages: 1 }, 'MB_STAGES_SIZE'],
    [{ numLayers: 4, stages: 2, layerFlops: 0 }, 'MB_STAGES_SIZE'],
    [{ numLayers: 4, stages: 2, headFlops: NaN }, 'MB_STAGES_SIZE'],
    [{ numLayers: 4, stages: 2, first: 0 }, 'MB_STAGES_BY_HAND'],
    [{ numLayers: 4, stages: 2, first: 4 }, 'MB_STAGES_BY_HAND'],
    [{ numLayers: 4, stages: 2, first: 1, last: 2 }, 'MB_STAGES_BY_HAND'],
    [{ numLayers: 4, stages: 1, first: 3 }, 'MB_STAGES_BY_HAND'],
    [{ numLayers: 4, stages: 1, first: 4, last: 3 }, 'MB_STAGES_BY_HAND'],
  ])('refuses %o', (request, code) => {
    expect(() => balanceStages({ ...even, ...request })).toThrow(expect.objectContaining({ code, exitCode: 3 }));
  });
});

describe('stage layers', () => {
  it('lists uneven stages in model order', () => {
    expect(stageLayers([3, 2])).toEqual([
      { rank: 0, chunk: 0, firstLayer: 0, layers: 3 },
      { rank: 1, chunk: 0, firstLayer: 3, layers: 2 },
    ]);
  });

  it('interleaves: PP4 V2 with 16 layers gives rank 0 the layers 1, 2, 9 and 10', () => {
    // The layer map of Megatron-Core's interleaved schedule, counted from 0 here.
    const stages = interleavedStageLayers(16, 4, 2);
    const of = (rank: number): number[] => stages.filter((s) => s.rank === rank).map((s) => s.firstLayer);
    expect([0, 1, 2, 3].map(of)).toEqual([[0, 8], [2, 10], [4, 12], [6, 14]]); // prettier-ignore
    expect(stages.map((s) => s.firstLayer)).toEqual([0, 2, 4, 6, 8, 10, 12, 14]);
    expect(new Set(stages.map((s) => s.layers))).toEqual(new Set([2]));
  });

  it('refuses interleaved stages that are not equal', () => {
    expect(() => interleavedStageLayers(36, 2, 4)).toThrow(
      expect.objectContaining({ code: 'MB_STAGES_INTERLEAVED', exitCode: 3 }),
    );
    expect(() => interleavedStageLayers(3, 2, 2)).toThrow(expect.objectContaining({ code: 'MB_STAGES_TOO_MANY' }));
  });
});

import { describe, expect, test } from 'vitest';
import { checkIndex } from '../../src/checkpoint/format/checkpoint-files.js';
import { FORMAT, VERSION } from '../../src/checkpoint/format/checkpoint-format.js';
import { modelOfSizes } from '../../src/checkpoint/hf/hf-files.js';
import { modelParameters } from '../../src/families/parameters.js';
import { plannedBuckets } from '../../src/checkpoint/run/reshard.js';
import { planSave, type SavedPiece } from '../../src/checkpoint/format/save-plan.js';
import { describeShards, type ShardLayout } from '../../src/checkpoint/format/shard-layout.js';
import { modelShape } from '../../src/families/model-shape.js';

const sizes = {
  vocab_size: 96,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 6,
};

interface Layout {
  tp: number;
  pp: number;
  dp: number;
  vpp?: number;
}

function plans(model: Record<string, unknown>, { tp, pp, dp, vpp = 1 }: Layout): ShardLayout<SavedPiece>[][] {
  const section = modelOfSizes(model, {
    tensor_model_parallel_size: tp,
    pipeline_model_parallel_size: pp,
    virtual_pipeline_model_parallel_size: vpp > 1 ? vpp : null,
  });
  return Array.from({ length: tp * pp * dp }, (_, rank) => {
    const place = {
      tp: { size: tp, rank: rank % tp },
      dpCp: { size: dp, rank: Math.floor(rank / tp) % dp },
      pp: { size: pp, rank: Math.floor(rank / (tp * dp)) },
    };
    return planSave({ buckets: plannedBuckets(section, place), tp: place.tp, rank });
  });
}

describe.each([true, false])('tied %s', (tie_word_embeddings) => {
  const model = { ...sizes, tie_word_embeddings };

  test.each<Layout>([
    { tp: 1, pp: 1, dp: 1 },
    { tp: 4, pp: 1, dp: 1 },
    { tp: 1, pp: 4, dp: 1 },
    { tp: 1, pp: 1, dp: 7 },
    { tp: 2, pp: 2, dp: 3 },
    { tp: 1, pp: 2, dp: 2, vpp: 2 },
  ])('on %o every tensor is written once, whole', (layout) => {
    const shards = plans(model, layout).flat();
    expect(new Set(shards.map(({ file }) => file)).size).toBe(shards.length);
    const records = shards.map(({ bytes }) => ({ bytes, crc32: [] }));
    const { tensors } = describeShards(shards, records);
    const index = { format: FORMAT, version: VERSION, tensors } as const;
    checkIndex('index', index, { files: Object.fromEntries(shards.map(({ file }, i) => [file, records[i]!])) });
    const parameters = modelParameters(modelShape({ model: modelOfSizes(model) })).map(({ name }) => name);
    const expected = ['', 'exp_avg.', 'exp_avg_sq.'].flatMap((kind) => parameters.map((name) => `${kind}${name}`));
    expect(Object.keys(tensors).sort()).toEqual(expected.sort());
  });

  test.each([2, 3, 7])('%d replicas write nearly the same number of bytes', (dp) => {
    const bytes = plans(model, { tp: 1, pp: 1, dp }).map((shards) =>
      shards.reduce((sum, shard) => sum + shard.bytes, 0),
    );
    const mean = bytes.reduce((a, b) => a + b) / dp;
    expect(Math.max(...bytes) / mean).toBeLessThan(1.25);
  });
});

import { expect, test } from 'vitest';
import { findRecipe, RECIPES } from '../../recipes/index.js';
import { qwen34bPretrainConfig, qwen3PretrainConfig, qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { validateLayout } from '../../src/config/layout.js';
import { modelShape } from '../../src/families/model-shape.js';
import { resolveConfig } from '../../src/config/resolve.js';

/** Weights of a dense Qwen3, counted by hand: embedding (twice where untied), layers with their four norms, last norm. */
function parameters(shape: ReturnType<typeof modelShape>): number {
  const {
    vocabSize,
    hiddenSize: h,
    intermediateSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    tieWordEmbeddings,
  } = shape;
  const attention = h * headDim * (2 * numHeads + 2 * numKvHeads) + 2 * headDim;
  return vocabSize * h * (tieWordEmbeddings ? 1 : 2) + numLayers * (attention + 3 * h * intermediateSize + 2 * h) + h;
}

test('every recipe is complete and runs on one process', () => {
  for (const recipe of RECIPES) expect(validateLayout(resolveConfig({ recipe }), 1).dp).toBe(1);
});

// The published sizes are 0.596, 1.721, 4.022, 8.191, 14.768 and 32.762 billion (tied weights counted once).
test.each([
  ['0.6b', 596_049_920],
  ['1.7b', 1_720_574_976],
  ['4b', 4_022_468_096],
  ['8b', 8_190_735_360],
  ['14b', 14_768_307_200],
  ['32b', 32_762_123_264],
] as const)('qwen3-%s has %i parameters', (size, count) => {
  expect(parameters(modelShape(qwen3PretrainConfig(size)))).toBe(count);
});

test("the library's way: keys without their section, then assignments", () => {
  const cfg = qwen34bPretrainConfig({
    tensor_model_parallel_size: 2,
    pipeline_model_parallel_size: 2,
    seq_length: 1024,
    train_iters: 20,
    lr: 1e-4,
    dataset: { type: 'jsonl', path: 'x.jsonl' },
  });
  cfg.dist.use_decentralized_pg = true;
  cfg.dist.use_gloo_process_groups = false;
  expect(cfg.model).toMatchObject({ seq_length: 1024, sequence_parallel: true, num_hidden_layers: 36 });
  expect(cfg.scheduler).toMatchObject({ lr_warmup_iters: 2, lr_decay_iters: 20 });
  expect(cfg.dataset).toMatchObject({ type: 'jsonl', path: 'x.jsonl', shuffle: true });
  expect(validateLayout(cfg, 8)).toMatchObject({ tp: 2, pp: 2, dp: 2, microBatches: 16 });
});

test('two configurations of one recipe share nothing', () => {
  const [a, b] = [qwen3TinyPretrainConfig(), qwen3TinyPretrainConfig()];
  a.model.seq_length = 1;
  if (a.dataset.type === 'text') a.dataset.path = 'changed';
  expect(b.model.seq_length).toBe(256);
  expect(b.dataset).toMatchObject({ path: 'builtin:moby-dick' });
});

test('bad arguments are named', () => {
  expect(() => qwen3TinyPretrainConfig({ tensor_model_paralel_size: 2 } as object)).toThrow(
    'argument tensor_model_paralel_size tensor_model_paralel_size: unknown key (did you mean model.tensor_model_parallel_size?)',
  );
  expect(findRecipe('Qwen/Qwen3-0.6B')).toBe(findRecipe('qwen3-0.6b'));
  expect(() => findRecipe('qwen3-5b')).toThrow('unknown recipe qwen3-5b (did you mean');
});

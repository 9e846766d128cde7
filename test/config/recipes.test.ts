import { expect, test } from 'vitest';
import { findRecipe, RECIPES } from '../../recipes/index.js';
import { qwen34bPretrainConfig, qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { validateLayout } from '../../src/config/layout.js';
import { modelShape } from '../../src/families/model-shape.js';
import { parameterCount } from '../../src/families/parameters.js';
import { resolveConfig } from '../../src/config/resolve.js';

test('every recipe is complete and runs on one process', () => {
  for (const recipe of RECIPES) expect(validateLayout(resolveConfig({ recipe }), 1).dp).toBe(1);
});

// As Hugging Face counts the elements of the published safetensors, tied weights once.
test.each([
  ['qwen3-0.6b', 596_049_920],
  ['qwen3-1.7b', 1_720_574_976],
  ['qwen3-4b', 4_022_468_096],
  ['qwen3-8b', 8_190_735_360],
  ['qwen3-14b', 14_768_307_200],
  ['qwen3-32b', 32_762_123_264],
])('%s has %i parameters', (name, count) => {
  expect(parameterCount(modelShape(resolveConfig({ recipe: findRecipe(name) })))).toBe(count);
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

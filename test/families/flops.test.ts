import { expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { resolveConfig } from '../../src/config/resolve.js';
import { stepFlops } from '../../src/families/flops.js';
import { modelShape } from '../../src/families/model-shape.js';

const shape = modelShape(resolveConfig({ recipe: findRecipe('qwen3-4b') }));

/** Of a token: 6 for each of the weights of qkv, output, gate, up and down in 36 layers, and of the head. */
const WEIGHTS = 6 * (36 * (2560 * 6144 + 4096 * 2560 + 3 * 2560 * 9728) + 2560 * 151936);

test("Megatron's formula, by hand", () => {
  const attention = 36 * 6 * 32 * 128 * 4096;
  expect(stepFlops(shape, 4096, 2)).toBe(2 * 4096 * (WEIGHTS + attention));
});

test('documents that are kept apart: halves of their squares', () => {
  const lengths = [1000, 3000, 96];
  const pairs = lengths.reduce((sum, length) => sum + length ** 2 / 2, 0);
  const attention = lengths.reduce((sum, length) => sum + 36 * 6 * 32 * 128 * length * length, 0);
  expect(stepFlops(shape, 4096, 1, { pairs })).toBe(4096 * WEIGHTS + attention);
});

test('beside adapters the weights of the model have no gradient', () => {
  const attention = 36 * 6 * 32 * 128 * 4096;
  const adapters = { rank: 16, alpha: 32, modules: ['q_proj', 'down_proj'] };
  const own = 6 * 36 * 16 * (2560 + 4096 + 9728 + 2560);
  expect(stepFlops(shape, 4096, 2, { adapters })).toBe(2 * 4096 * ((WEIGHTS * 2) / 3 + own + attention));
});

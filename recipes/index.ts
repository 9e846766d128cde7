import { didYouMean } from '../src/base/nearest.js';
import { MbridgeError } from '../src/base/errors.js';
import { LLAMA3_RECIPES } from './llama3.js';
import { QWEN25_RECIPES } from './qwen2-5.js';
import { QWEN3_RECIPES } from './qwen3.js';
import type { Recipe } from './recipe.js';

/** Every recipe, in the order that `mbridge recipes` lists them. */
export const RECIPES: readonly Recipe[] = [...QWEN3_RECIPES, ...QWEN25_RECIPES, ...LLAMA3_RECIPES];

/**
 * The recipe of that name, as the hub writes it too (`Qwen/Qwen3-0.6B-Base`, `meta-llama/Llama-3.2-1B`); an unknown one is
 * a config error (exit code 3).
 */
export function findRecipe(name: string): Recipe {
  const model = name.slice(name.lastIndexOf('/') + 1).toLowerCase();
  const wanted = model
    .replaceAll('_', '-')
    .replace(/^(meta-)?llama-/, 'llama')
    .replace(/-base$/, '');
  const recipe = RECIPES.find((r) => r.name === wanted);
  if (recipe) return recipe;
  const names = RECIPES.map((r) => r.name);
  throw new MbridgeError('config', 'MB_CONFIG_UNKNOWN_RECIPE', `unknown recipe ${name}${didYouMean(name, names)}`, {
    hint: `recipes: ${names.join(', ')}; or give a .yaml file`,
    details: { name, recipes: names },
  });
}

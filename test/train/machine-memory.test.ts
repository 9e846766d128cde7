import { expect, test } from 'vitest';
import { resolve } from '../../src/config/resolve.js';
import { findRecipe } from '../../recipes/index.js';
import { checkMachineMemory } from '../../src/train/machine-memory.js';
import { planRun, type RunPlan } from '../../src/train/plan.js';

const PROCESS = 96 * 2 ** 20;

function planOf(...texts: string[]): RunPlan {
  const overrides = texts.map((text) => ({ text, place: 'here' }));
  const { config } = resolve({ recipe: findRecipe('qwen3-tiny'), flags: [], overrides });
  return planRun(config, 2, 'cpu');
}

test.each([
  { name: 'arenas and processes', set: [] },
  { name: 'and what checkpoints are staged in', set: ['checkpoint.save=somewhere'] },
])('a run needs the memory of its $name', ({ set }) => {
  const plan = planOf(...set);
  expect(plan.ranks.every(({ hostBytes }) => hostBytes > 0)).toBe(set.length > 0);
  const needed = plan.ranks.reduce((sum, { totalBytes, hostBytes }) => sum + totalBytes + hostBytes + PROCESS, 0);
  expect(() => {
    checkMachineMemory(plan, 2, needed);
  }).not.toThrow();
  expect(() => {
    checkMachineMemory(plan, 2, needed - 1);
  }).toThrow(expect.objectContaining({ code: 'MB_MEMORY_PLAN', exitCode: 4 }));
});

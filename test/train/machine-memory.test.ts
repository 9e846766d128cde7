import { expect, test } from 'vitest';
import { resolve } from '../../src/config/resolve.js';
import { findRecipe } from '../../recipes/index.js';
import { checkMachineMemory } from '../../src/train/machine-memory.js';
import { planRun, type RunPlan } from '../../src/train/plan.js';

const PROCESS = 96 * 2 ** 20;

function planOf(texts: readonly string[], device: 'cpu' | 'cuda' = 'cpu'): RunPlan {
  const overrides = texts.map((text) => ({ text, place: 'here' }));
  const { config } = resolve({ recipe: findRecipe('qwen3-tiny'), flags: [], overrides });
  return planRun(config, 2, device);
}

const COPIES = 'checkpoint.non_persistent_save_interval=1';

test.each([
  { name: 'arenas and processes', set: [] },
  { name: 'and what checkpoints are staged in', set: ['checkpoint.save=somewhere'], saves: true },
  { name: 'and two copies in memory', set: [COPIES], copies: true },
  {
    name: 'saves and copies, beside what GPUs have',
    set: ['checkpoint.save=x', COPIES],
    saves: true,
    copies: true,
    device: 'cuda' as const,
  },
])('a run needs the memory of its $name', ({ set, saves = false, copies = false, device = 'cpu' as const }) => {
  const plan = planOf(set, device);
  expect(plan.ranks.every(({ hostBytes }) => hostBytes > 0)).toBe(saves);
  const [state] = planOf(['checkpoint.save=somewhere'], device).ranks;
  expect(plan.ranks.map(({ copyBytes }) => copyBytes)).toEqual(
    [0, 1].map(() => (copies ? 2 * (state?.hostBytes ?? 0) : 0)),
  );
  const needed = plan.ranks.reduce(
    (sum, { totalBytes, hostBytes, copyBytes }) =>
      sum + (device === 'cpu' ? totalBytes : 0) + hostBytes + copyBytes + PROCESS,
    0,
  );
  expect(() => {
    checkMachineMemory(plan, 2, needed);
  }).not.toThrow();
  expect(() => {
    checkMachineMemory(plan, 2, needed - 1);
  }).toThrow(expect.objectContaining({ code: 'MB_MEMORY_PLAN', exitCode: 4 }));
});

import { describe, expect, test } from 'vitest';
import type { StepEvent } from '../../src/job/shared/messages.js';
import { loadFixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { layoutConfig, ranksOf, type Layout } from '../parity/run-fixture.js';

interface Evaluation {
  loss: number;
  tokens: number;
  totals: Record<string, number>;
}

interface Evaluated {
  type: 'evaluated';
  whole: Evaluation;
  parts: Evaluation[];
  evaluations: (Evaluation & { step: number })[];
  acts: number[];
}

const GRID = { tp: 2, pp: 2, dp: 1 };
const REPLICAS = { tp: 1, pp: 1, dp: 2 };
const CONTEXT = { tp: 1, cp: 2, pp: 1, dp: 2 };

async function run(layout: Layout, weight: number | null): Promise<{ steps: StepEvent[]; found: Evaluated }> {
  const config = layoutConfig(loadFixture('qwen3-masked'), layout, { 'train.train_iters': 4 });
  const options = { weight, field: 'weight' };
  const { exitCode, events, log } = await runWorkers('losses', config, ranksOf(layout), options);
  expect(exitCode, log).toBe(0);
  const steps = events.filter(({ type }) => type === 'step') as StepEvent[];
  return { steps, found: events.find(({ type }) => type === 'evaluated') as Evaluated };
}

describe('a loss of its own', () => {
  test.each([
    ['tp 2, pp 2', GRID],
    ['dp 2, in parts', { ...REPLICAS, set: ['model.loss_chunk_tokens=7'] }],
    ['cp 2, dp 2', CONTEXT],
  ])('takes its weights from a field of the batch, and divides by the counted tokens, on %s', async (_, layout) => {
    const [plain, once, double] = [await run(layout, null), await run(layout, 1), await run(layout, 2)];
    const losses = (steps: StepEvent[]): number[] => steps.map(({ loss }) => loss);
    // With weights of one it is cross entropy, but for the order in which micro-batches are added up.
    expect(once.steps).toHaveLength(4);
    once.steps.forEach(({ loss, grad_norm, tokens }, i) => {
      expect(loss).toBeCloseTo(plain.steps[i]!.loss, 5);
      expect(grad_norm).toBeCloseTo(plain.steps[i]!.grad_norm, 4);
      expect(tokens).toBe(plain.steps[i]!.tokens);
    });
    // AdamW's update does not depend on the gradient's scale, but clipping and the norm do.
    expect(double.steps[0]).toMatchObject({
      loss: 2 * once.steps[0]!.loss,
      grad_norm: 2 * once.steps[0]!.grad_norm,
      tokens: once.steps[0]!.tokens,
    });
    expect(losses(double.steps)[3]).not.toBe(losses(double.steps)[0]);
    for (const { tokens, totals } of double.steps) expect(totals).toEqual({ squares: 4 * tokens });
    expect(plain.steps[0]).not.toHaveProperty('totals');
  });

  test('a batch without its field is refused', async () => {
    const config = layoutConfig(loadFixture('qwen3-masked'), { tp: 1, pp: 1, dp: 1 }, {});
    const { exitCode, log } = await runWorkers('losses', config, 1, { weight: 1, field: 'other' });
    expect(exitCode).toBe(3);
    expect(log).toContain('error MB_BATCH: rank 0: a micro-batch without the field weight');
  });
});

describe('an evaluation', () => {
  test('sums over replicas, over any number of micro-batches, and leaves the training as it is', async () => {
    const [grid, replicas, context] = [await run(GRID, null), await run(REPLICAS, null), await run(CONTEXT, null)];
    for (const { found } of [grid, replicas, context]) {
      const { whole, parts, evaluations, acts } = found;
      const tokens = parts.reduce((sum, part) => sum + part.tokens, 0);
      // A micro-batch may have no token that counts, and then no mean.
      const counted = parts.filter((part) => part.tokens > 0);
      const loss = counted.reduce((sum, part) => sum + part.loss * part.tokens, 0) / tokens;
      expect(whole.tokens).toBe(tokens);
      expect(whole.loss).toBeCloseTo(loss, 5);
      // Twice each: a loop acts after every second update, and every third.
      expect(evaluations.map(({ step }) => step)).toEqual([2, 4]);
      expect(acts).toEqual([3]);
      // The same batches each time, on which the model was trained meanwhile.
      expect(evaluations[1]!.loss).toBeLessThan(evaluations[0]!.loss);
      expect(whole.totals).toEqual({});
    }
    for (const { found } of [replicas, context]) {
      expect(found.evaluations[0]!.tokens).toBe(grid.found.evaluations[0]!.tokens);
      expect(found.evaluations[0]!.loss).toBeCloseTo(grid.found.evaluations[0]!.loss, 4);
    }
    const { trajectory } = loadFixture('qwen3-masked');
    grid.steps.forEach(({ loss }, i) => expect(loss).toBeCloseTo(trajectory.steps[i]!.loss, 4));
  });
});

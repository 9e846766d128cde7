import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mbridge } from '../cli/mbridge.js';
import { loadFixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { layoutConfig, ranksOf, type Layout, type Step } from '../parity/run-fixture.js';
import { temporaryFolder } from './runs.js';

const fixture = loadFixture('qwen3-untied');
const ALONE: Layout = { tp: 1, pp: 1, dp: 1 };
const FULL = process.env['MBRIDGE_TEST_FULL'] === '1';
const GRID: Layout = { tp: 2, pp: FULL ? 2 : 1, dp: 1 };

interface Outcome {
  readonly exitCode: number;
  readonly log: string;
  readonly steps: Step[];
  /** The row of weights before the first update, on each replica. */
  readonly rows: number[][];
}

async function run(
  layout: Layout,
  values: Record<string, unknown>,
  head: 'value' | 'language' = 'value',
  beside?: string,
): Promise<Outcome> {
  const config = layoutConfig(fixture, layout, values);
  const { exitCode, events, log } = await runWorkers('value', config, ranksOf(layout), { head, beside });
  const steps = (events as (Step & { type: string })[]).filter(({ type }) => type === 'step');
  const rows = (events as { type: string; values: number[] }[]).filter(({ type }) => type === 'began');
  return {
    ...{ exitCode, log, rows: rows.map((event) => event.values) },
    steps: steps.map(({ step, loss, grad_norm, lr }) => ({ step, loss, grad_norm, lr })),
  };
}

test('a value model is saved, resumed on any layout, and taken for nothing else', async () => {
  const folder = temporaryFolder();
  const save = join(folder, 'save');
  const whole = await run(GRID, { 'train.train_iters': 4 });
  expect(whole.exitCode, whole.log).toBe(0);
  expect(whole.steps).toHaveLength(4);
  const first = await run(GRID, { 'train.train_iters': 2, 'checkpoint.save': save });
  expect(first.exitCode, first.log).toBe(0);
  expect(first.steps).toEqual(whole.steps.slice(0, 2));

  const again = { 'train.train_iters': 4, 'checkpoint.load': save };
  const resumed = await run(GRID, again);
  expect(resumed.steps, resumed.log).toEqual(whole.steps.slice(2));
  expect(resumed.rows[0]).not.toEqual(first.rows[0]);
  const spread = await run({ tp: 1, pp: 2, dp: 1 }, again);
  expect(spread.rows[0], spread.log).toEqual(resumed.rows[0]);
  expect(spread.steps).toHaveLength(2);
  spread.steps.forEach(({ loss }, i) => expect(Math.abs(loss / whole.steps[i + 2]!.loss - 1)).toBeLessThan(1e-5));

  const exported = await mbridge(['checkpoint', 'export', save, join(folder, 'hf')]);
  expect(exported.exitCode).toBe(7);
  expect(exported.stderr).toContain('is of a value model, and a language model is read');
  const saving = { 'train.train_iters': 4, 'checkpoint.save': save };
  for (const [values, code] of [
    [again, 'MB_CHECKPOINT_MODEL'],
    [saving, 'MB_CHECKPOINT_FOREIGN'],
  ] as const) {
    const { exitCode, log } = await run(ALONE, values, 'language');
    expect(exitCode, log).toBe(7);
    expect(log).toContain(code);
    expect(log).toMatch(/is of a value model/);
  }

  // Its weights alone, with the row that was learned.
  const pretrained = { 'train.train_iters': 1, 'checkpoint.pretrained_checkpoint': save };
  const begun = await run(ALONE, pretrained);
  expect(begun.rows, begun.log).toEqual([resumed.rows[0]]);
  if (!FULL) return;
  expect((await run(ALONE, pretrained, 'language')).log).toContain('MB_CHECKPOINT_MODEL');
  const cut = join(folder, 'cut');
  const reshard = await mbridge(['checkpoint', 'reshard', save, cut, '--tp-size', '2', '--dp-size', '2']);
  expect(reshard.exitCode, reshard.stderr).toBe(0);
  const { stdout } = await mbridge(['checkpoint', 'inspect', join(cut, 'step-00000002'), '--tensors']);
  expect(stdout).toContain('head value');
  expect(stdout).toMatch(/^ {2}score\.weight {2}F32 \[1, 96\]/m);
  expect((await run(GRID, { ...again, 'checkpoint.load': cut })).steps).toEqual(whole.steps.slice(2));
}, 120_000);

test('a value model beside a policy is saved and resumed with it', async () => {
  const [save, beside] = [join(temporaryFolder(), 'policy'), join(temporaryFolder(), 'value')];
  const both = (updates: number): Promise<Outcome> => {
    const values = { 'train.train_iters': updates, 'checkpoint.save': save, 'checkpoint.load': save };
    return run({ tp: 2, pp: 1, dp: 1 }, values, 'language', beside);
  };
  const first = await both(1);
  expect(first.exitCode, first.log).toBe(0);
  const again = await both(2);
  expect(again.exitCode, again.log).toBe(0);
  expect(again.steps.map(({ step }) => step)).toEqual([2]);
  // It goes on from what was learned.
  expect(again.rows[0]).not.toEqual(first.rows[0]);
  const headOf = (folder: string): unknown =>
    (JSON.parse(readFileSync(join(folder, 'step-00000002', 'state.json'), 'utf8')) as { head?: unknown }).head;
  expect([save, beside].map(headOf)).toEqual([undefined, 'value']);
}, 60_000);

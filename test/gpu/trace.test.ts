import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { mbridge } from '../cli/mbridge.js';
import { readTrace, within } from '../helpers/chrome-trace.js';

test('a trace has what the GPU did when, by events on its streams', { timeout: 120_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-trace-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const args = ['train.train_iters=6', 'logger.trace_steps=[4,5]', 'checkpoint.save=null'];
  const where = ['--device', 'cuda', '--nproc', '1', '--log-dir', join(folder, 'run'), '--json'];
  const { exitCode, stdout, stderr } = await mbridge(['pretrain', 'qwen3-tiny', ...where, ...args]);
  expect(exitCode, stderr).toBe(0);
  const spans = readTrace(join(folder, 'run/rank-0/trace.json'), 0);
  const updates = spans.filter(({ cat }) => cat === 'updates');
  expect(updates.map(({ name }) => name)).toEqual(['update 4', 'update 5']);
  for (const update of updates) {
    const inside = spans.filter((span) => span.cat === 'compute' && within(span, update, 5));
    expect(inside.filter(({ name }) => name === 'forward').length).toBeGreaterThan(0);
    expect(inside.filter(({ name }) => name === 'backward').length).toBeGreaterThan(0);
    // The device's own times: they add up to most of the update's.
    const sum = inside.reduce((ms, { dur }) => ms + dur, 0);
    expect(sum).toBeGreaterThan(0.5 * update.dur);
    const step = Number(update.name.replace('update ', ''));
    const told = stdout.split('\n').find((line) => line.includes(`"type":"step","step":${step},`))!;
    const { step_time_ms: ms } = JSON.parse(told) as { step_time_ms: number };
    expect(update.dur / 1000).toBeLessThan(1.2 * ms + 1);
  }
});

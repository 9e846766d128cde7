import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';
import { pretrain } from '../checkpoint/runs.js';

/** So many that the ranks' times have a line. */
export const UPDATES = 13;

/** A folder for a file's tests, with a real run of two ranks in `runs/real`. */
export function realRun(): { readonly folder: string; readonly runs: string } {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-trace-'));
  const runs = join(folder, 'runs');
  beforeAll(async () => {
    const args = ['--nproc', '2', `train.train_iters=${UPDATES}`, 'checkpoint.save=null'];
    const { exitCode, stderr } = await pretrain({ folder, args });
    expect(exitCode, stderr).toBe(0);
    cpSync(join(folder, 'run'), join(runs, 'real'), { recursive: true });
  }, 60_000);
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });
  return { folder, runs };
}

/** A run that was copied, under another name. */
export function copyRun(runs: string, name: string): string {
  const to = join(runs, name);
  cpSync(join(runs, 'real'), to, { recursive: true });
  const record = JSON.parse(readFileSync(join(to, 'run.json'), 'utf8')) as { started: string };
  // It is the newest.
  const started = new Date(Date.parse(record.started) + 60_000).toISOString();
  writeFileSync(join(to, 'run.json'), JSON.stringify({ ...record, started }));
  return to;
}

export function stepLine(step: number, loss: number | null): string {
  return `${JSON.stringify({ type: 'step', step, loss, grad_norm: 1, lr: 1e-3, time: new Date().toISOString() })}\n`;
}

export function append(folder: string, file: string, text: string): void {
  appendFileSync(join(folder, file), text);
}

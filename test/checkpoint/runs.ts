import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { stringify } from 'yaml';
import { mbridge, type Outcome } from '../cli/mbridge.js';
import { loadFixture } from '../helpers/fixture.js';
import { fixtureConfig, type Step } from '../parity/run-fixture.js';

export const fixture = loadFixture('qwen3-tied');

/** A folder that goes when the test ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-checkpoint-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Run {
  /** The run's own folder: configuration and logs. */
  readonly folder: string;
  /** `--nproc`, `--tp-size`, ..., and section.key=value. */
  readonly args: readonly string[];
  /** Changes of the fixture's configuration. */
  readonly config?: Record<string, unknown>;
}

/** Arguments of a run on the fixture's data and weights. */
export function pretrainArgs({ folder, args, config = {} }: Run): string[] {
  writeFileSync(join(folder, 'run.yaml'), stringify({ ...fixtureConfig(fixture), ...config }));
  const where = ['--config', join(folder, 'run.yaml'), '--log-dir', join(folder, 'run')];
  return ['pretrain', ...where, '--device', 'cpu', '--json', ...args];
}

/** Runs `mbridge pretrain` on the fixture. */
export function pretrain(run: Run): Promise<Outcome> {
  return mbridge(pretrainArgs(run));
}

/** Runs it, and gives its step lines; fails with the output where it fails. */
export async function pretrainSteps(run: Run): Promise<{ steps: Step[]; stderr: string }> {
  const { exitCode, stdout, stderr } = await pretrain(run);
  if (exitCode !== 0) throw new Error(`exit ${exitCode}\n${stdout}\n${stderr}`);
  return { steps: stepsOf(stdout), stderr };
}

/** Step lines without what time decides. */
export function stepsOf(stdout: string): Step[] {
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Step & { type: string })
    .filter(({ type }) => type === 'step')
    .map(({ step, loss, grad_norm, lr }) => ({ step, loss, grad_norm, lr }));
}

export const LAYOUT_FLAGS = {
  'tp2 pp2': ['--nproc', '4', '--tp-size', '2', '--pp-size', '2'],
  dp1: ['--nproc', '1'],
  dp4: ['--nproc', '4'],
  tp4: ['--nproc', '4', '--tp-size', '4'],
  pp4: ['--nproc', '4', '--pp-size', '4'],
  'tp2 dp2': ['--nproc', '4', '--tp-size', '2'],
  'pp2 vpp2': ['--nproc', '2', '--pp-size', '2', '--vp-size', '2'],
  cp2: ['--nproc', '2', '--cp-size', '2'],
  'dp4 unsharded': ['--nproc', '4', 'optimizer.use_distributed_optimizer=false'],
} as const satisfies Record<string, readonly string[]>;

/** Fails unless two checkpoints hold the same files, byte for byte, but for the paths in their states. */
export function expectSameTensors(a: string, b: string): void {
  const files = (folder: string): string[] => readdirSync(folder).sort();
  expect(files(a)).toEqual(files(b));
  const named = files(a).filter((name) => name.endsWith('.safetensors') || name === 'index.json');
  expect(named.length).toBeGreaterThan(1);
  for (const name of named) expect(readFileSync(join(a, name)).equals(readFileSync(join(b, name))), name).toBe(true);
}

export function copyFolder(from: string, to: string): string {
  cpSync(from, to, { recursive: true });
  return to;
}

/** Turns one bit of a file, at a part of its length. */
export function flipBit(path: string, where: number): void {
  const bytes = readFileSync(path);
  const at = Math.floor(bytes.length * where);
  bytes[at] = (bytes[at] as number) ^ 4;
  writeFileSync(path, bytes);
}

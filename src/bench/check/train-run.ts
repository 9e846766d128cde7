import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { nodeOptions } from '../../base/early-signals.js';
import { packageRoot } from '../../base/package-root.js';

/** Ranks by what they share; tp * cp * pp * dp processes. */
export interface CheckLayout {
  readonly tp: number;
  /** 1 by default. */
  readonly cp?: number;
  readonly pp: number;
  readonly dp: number;
  /** `section.key=value` */
  readonly set?: readonly string[];
}

export interface TrainedStep {
  readonly step: number;
  readonly loss: number;
  readonly grad_norm: number;
  readonly lr: number;
}

export interface TrainRequest {
  /** `pretrain` by default. */
  readonly command?: readonly string[];
  readonly device: 'cpu' | 'cuda';
  /** Indices of the GPUs to use; the run is given no others. */
  readonly gpus: readonly number[];
  /** Processes that share each of them. */
  readonly ranksPerGpu: number;
  /** Ends the run with the signal that is its reason. */
  readonly stop: AbortSignal;
  readonly layout: CheckLayout;
  /** A recipe and overrides, or a configuration (JSON is YAML). */
  readonly args?: readonly string[];
  readonly config?: unknown;
}

const TIMEOUT_MS = 240_000;

export function layoutName({ tp, cp = 1, pp, dp, set = [] }: CheckLayout): string {
  return `tp${tp} ${cp > 1 ? `cp${cp} ` : ''}pp${pp} dp${dp} ${set.map((text) => text.replace(/^\w+\./, '')).join(' ')}`.trim();
}

export function ranksOf({ tp, cp = 1, pp, dp }: CheckLayout): number {
  return tp * cp * pp * dp;
}

/** The arguments of Node that make the run, with its folder in `folder`. */
function trainCommand(request: TrainRequest, folder: string): string[] {
  const { command = ['pretrain'], device, ranksPerGpu, layout, args = [], config } = request;
  const file = join(folder, 'run.yaml');
  if (config !== undefined) writeFileSync(file, JSON.stringify(config));
  const { tp, cp = 1, pp } = layout;
  const sizes = Object.entries({ nproc: ranksOf(layout), 'tp-size': tp, 'cp-size': cp, 'pp-size': pp });
  return [
    join(packageRoot(), 'bin', 'mbridge.js'),
    ...command,
    ...args,
    ...(layout.set ?? []),
    `dist.ranks_per_gpu=${ranksPerGpu}`,
    ...(config === undefined ? [] : ['--config', file]),
    ...sizes.flatMap(([name, size]) => [`--${name}`, String(size)]),
    ...['--device', device, '--json', '--log-dir', join(folder, 'run')],
  ];
}

/** Starts the run, on its GPUs alone. */
export function startTraining(request: TrainRequest, folder: string): ChildProcessByStdio<null, Readable, Readable> {
  const { device, gpus, stop } = request;
  stop.throwIfAborted();
  const visible = device === 'cuda' ? { CUDA_VISIBLE_DEVICES: gpus.join(',') } : {};
  const child = spawn(process.execPath, [...nodeOptions(), ...trainCommand(request, folder)], {
    env: { ...process.env, NO_COLOR: '1', ...visible },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
  });
  const end = (): void => {
    child.kill(stop.reason as NodeJS.Signals);
  };
  stop.addEventListener('abort', end);
  child.once('close', () => {
    stop.removeEventListener('abort', end);
  });
  return child;
}

/** Exit code or signal of a run, and what it printed. */
export interface TrainOutcome {
  readonly ended: number | string;
  readonly out: string;
  readonly err: string;
}

export async function outcomeOf(child: ChildProcessByStdio<null, Readable, Readable>): Promise<TrainOutcome> {
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      resolve({ ended: code ?? signal ?? 'unknown', out, err });
    });
  });
}

/** Calls `use` with a folder that is gone afterwards. */
export async function withFolder<Result>(use: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-check-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Trains through the real command line, and gives the step lines; throws with the output where the run fails. */
export async function trainRun(request: TrainRequest): Promise<TrainedStep[]> {
  return withFolder(async (folder) => {
    const { ended, out, err } = await outcomeOf(startTraining(request, folder));
    if (ended !== 0) throw new Error(`the run ended with ${ended}\n${err.slice(-3000)}`);
    return out
      .split('\n')
      .filter((line) => line.includes('"type":"step"'))
      .map((line) => JSON.parse(line) as TrainedStep);
  });
}

/** Largest relative distance of a metric over the steps. NaN where either has none. */
export function farthest(
  steps: readonly TrainedStep[],
  reference: readonly Pick<TrainedStep, 'loss' | 'grad_norm'>[],
  key: 'loss' | 'grad_norm',
): number {
  if (steps.length !== reference.length) return NaN;
  const distances = steps.map((step, i) => {
    const right = reference[i]?.[key] ?? NaN;
    return Math.abs(step[key] - right) / Math.abs(right);
  });
  return distances.some(Number.isNaN) ? NaN : Math.max(...distances);
}

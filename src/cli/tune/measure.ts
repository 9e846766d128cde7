import { EXIT } from '../../base/errors.js';
import type { DeviceKind } from '../../config/layout.js';
import type { RankedSetting } from '../../plan/rank-settings.js';

export interface Measured {
  readonly stepMs: number;
  readonly tokensPerSecond: number;
}

/** What came of a run: its step, why there is none, or the exit code of a signal that ended it. */
export type Outcome =
  | { readonly kind: 'measured'; readonly measured: Measured }
  | { readonly kind: 'failed'; readonly reason: string; readonly exitCode: number }
  | { readonly kind: 'stopped'; readonly exitCode: number };

export interface MeasureOptions {
  readonly name: string;
  readonly nproc: number;
  readonly device: DeviceKind;
  readonly steps: number;
}

/** Steps before those that count: libraries load, and groups connect. */
const WARMUP = 2;

/** Trains a few updates in a setting, as `mbridge bench step` does, without saving anything. */
export async function measureSetting({ config }: RankedSetting, options: MeasureOptions): Promise<Outcome> {
  const { runBench } = await import('../bench/launch.js');
  const { summarizeSteps } = await import('../../bench/run/step-summary.js');
  const { name, nproc, device, steps } = options;
  const { train, logger } = config;
  const short = {
    ...config,
    train: { ...train, train_iters: WARMUP + steps },
    logger: { ...logger, log_interval: 1, log_dir: null },
  };
  const module = 'bench/run/step-worker.js';
  const { exitCode, result, events } = await runBench({
    module,
    name,
    config: short,
    nproc,
    device,
    options: { profile: false },
  });
  if (exitCode > 128) return { kind: 'stopped', exitCode };
  if (exitCode !== EXIT.ok) return { kind: 'failed', reason: reasonOf(result, exitCode), exitCode };
  const { timing } = summarizeSteps(short, nproc, events, WARMUP);
  const tokens = train.global_batch_size * config.model.seq_length;
  return { kind: 'measured', measured: { stepMs: timing.median, tokensPerSecond: (1000 * tokens) / timing.median } };
}

function reasonOf(result: object, exitCode: number): string {
  const { error } = result as { error?: { code?: string } };
  return error?.code ?? `exit code ${exitCode}`;
}

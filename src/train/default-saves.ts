import { existsSync, statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { formatBytes } from '../base/format-amount.js';
import type { RunConfig } from '../config/schema.js';
import type { RunPlan } from './plan.js';

/** Checkpoints that a run keeps in its own folder, where nobody says how many. */
const KEPT = 2;
/** A run is saved so often on its way, where nobody says how often, but not more often than after so many updates. */
const SAVES = 10;
const LEAST_INTERVAL = 100;
/** float32 weights and two moments; of what is frozen, the weights as the model computes with them. */
const BYTES = { trained: 12, frozen: { fp32: 4, bf16_mixed: 2, fp8_mixed: 2 } } as const;

/** What a checkpoint of a run takes on disk, but for some kilobytes. */
export function checkpointBytes({
  parameters,
  trainedParameters: trained,
  precision,
}: Pick<RunPlan, 'parameters' | 'trainedParameters' | 'precision'>): number {
  return trained * BYTES.trained + (parameters - trained) * BYTES.frozen[precision];
}

/**
 * The configuration of a run that saves in its own folder, which is not known yet.
 * @param isSet whether somebody set a key
 */
export function withDefaultSaves(config: RunConfig, isSet: (path: string) => boolean): RunConfig {
  const { checkpoint, train } = config;
  const interval = Math.max(LEAST_INTERVAL, Math.ceil(train.train_iters / SAVES));
  return {
    ...config,
    checkpoint: {
      ...checkpoint,
      save: 'checkpoints',
      ...(isSet('checkpoint.save_interval') ? {} : { save_interval: interval < train.train_iters ? interval : null }),
      ...(isSet('checkpoint.keep_last') ? {} : { keep_last: KEPT }),
    },
  };
}

/** The same run without saves. */
export function withoutSaves(config: RunConfig): RunConfig {
  const none = { save: null, save_interval: null, keep_last: null, keep_every: null };
  return { ...config, checkpoint: { ...config.checkpoint, ...none } };
}

/**
 * Why a run had better not save where nobody asked for it; undefined where it can.
 * @param folder in which the run's folder will be
 */
export function reasonNotToSave(plan: RunPlan, keepLast: number | null, folder: string): string | undefined {
  const needed = checkpointBytes(plan) * ((keepLast ?? KEPT) + 1);
  let present = resolve(folder);
  while (!existsSync(present) && dirname(present) !== present) present = dirname(present);
  try {
    const { bavail, bsize } = statfsSync(present);
    if (bavail * bsize >= needed) return undefined;
    return `nothing: ${formatBytes(needed)} needed, ${formatBytes(bavail * bsize)} free (set checkpoint.save)`;
  } catch {
    return undefined; // the folder itself will be refused, with the reason
  }
}

import { MbridgeError } from '../base/errors.js';
import { deviceIndexOf, gpusFor } from '../engine/devices.js';
import { gib } from '../train/memory-check.js';
import type { RunPlan } from '../train/plan.js';

/** A plan against the memory of the GPUs that it is for. */
export interface Fit {
  readonly fits: boolean;
  /** What each rank's GPU holds: its arena and the allowance for libraries, and those of the ranks that share it. */
  readonly heldBytes: readonly number[];
  /** The most of these, and the first rank that has it. */
  readonly neededBytes: number;
  readonly fullestRank: number;
  readonly usableBytes: number;
}

/** @param usableBytes of one GPU */
export function fitOf({ ranks }: RunPlan, usableBytes: number, ranksPerGpu: number): Fit {
  const ofGpu = new Array<number>(gpusFor(ranks.length, ranksPerGpu)).fill(0);
  const gpuOf = (rank: number): number => deviceIndexOf(rank, ranksPerGpu);
  for (const { rank, totalBytes, runtimeBytes } of ranks) {
    ofGpu[gpuOf(rank)] = (ofGpu[gpuOf(rank)] ?? 0) + totalBytes + runtimeBytes;
  }
  const heldBytes = ranks.map(({ rank }) => ofGpu[gpuOf(rank)] ?? 0);
  const neededBytes = heldBytes.reduce((most, bytes) => Math.max(most, bytes), 0);
  const fullestRank = heldBytes.indexOf(neededBytes);
  return { fits: neededBytes <= usableBytes, heldBytes, neededBytes, fullestRank, usableBytes };
}

/** What is said where a plan does not fit: which rank, how much is missing, the largest of what it holds, and what makes it less. */
export function doesNotFit(plan: RunPlan, fit: Fit, gpu: string): MbridgeError {
  const { neededBytes, usableBytes, fullestRank } = fit;
  const rank = plan.ranks[fullestRank];
  const held = Object.entries(rank?.bytes ?? {}).sort(([, a], [, b]) => b - a);
  const shares = rank !== undefined && neededBytes > rank.totalBytes + rank.runtimeBytes;
  const who = shares ? `the ranks on the GPU of rank ${fullestRank} need` : `rank ${fullestRank} needs`;
  const most = held.slice(0, 3).map(([name, bytes]) => `${name} ${gib(bytes)}`);
  const found =
    `${who} ${gib(neededBytes)} (${shares ? 'each: ' : ''}${most.join(', ')}), ${gpu} has ${gib(usableBytes)}: ` +
    `${gib(neededBytes - usableBytes)} too much`;
  return new MbridgeError('environment', 'MB_MEMORY_PLAN', found, {
    hint: `${adviceFor(held[0]?.[0])}; mbridge tune finds the fastest setting that fits`,
    details: { needed_bytes: neededBytes, usable_bytes: usableBytes, rank: fullestRank },
  });
}

function adviceFor(largest: string | undefined): string {
  if (largest === 'activations' || largest === 'workspace') {
    return 'lower train.micro_batch_size, set model.recompute_granularity=selective or full, or raise --tp-size';
  }
  const smaller = 'or keep state in bf16 (optimizer.exp_avg_dtype, ..., ddp.grads_dtype: docs/gpu.md)';
  return `raise --tp-size or --pp-size, start more ranks with ddp.data_parallel_sharding_strategy=optim_grads, ${smaller}`;
}

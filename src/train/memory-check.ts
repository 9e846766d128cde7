import { MbridgeError } from '../base/errors.js';
import type { Device } from '../engine/device.js';
import type { MemoryPlan } from '../engine/memory-plan.js';

export function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(bytes < 2 ** 30 ? 3 : 1)} GiB`;
}

/** What CUDA's libraries take at first use, after the arena: kernels, and channels of communicators. */
const LAZY_BYTES = 2 ** 29;

/** Refuses a plan that this device, or this rank's part of it, cannot hold, before anything is allocated. */
export function refuseIfTooLarge(plan: MemoryPlan, device: Device, ranksPerGpu: number): void {
  const now = device.memory();
  // Those that share the GPU may have taken their part or not.
  const part = device.kind === 'cuda' ? now.totalBytes / ranksPerGpu : now.totalBytes;
  const freeBytes = Math.min(now.freeBytes, part);
  const later = device.kind === 'cuda' ? LAZY_BYTES : 0;
  if (plan.totalBytes + later <= freeBytes) return;
  const regions = Object.entries(plan.byRegion())
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => `${name} ${gib(bytes)}`);
  throw new MbridgeError(
    'environment',
    'MB_MEMORY_PLAN',
    `this rank needs ${gib(plan.totalBytes)} (${regions.join(', ')}), ${device.info.name} has ${gib(freeBytes)} free`,
    {
      hint: 'spread the model over more ranks (--tp-size, --pp-size), lower train.micro_batch_size or model.seq_length, or set model.recompute_granularity',
      details: { needed: plan.totalBytes, free: freeBytes, regions: plan.byRegion() },
    },
  );
}

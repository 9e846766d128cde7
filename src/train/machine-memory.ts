import { freemem } from 'node:os';
import { MbridgeError } from '../base/errors.js';
import { gib } from './memory-check.js';
import type { RankPlan, RunPlan } from './plan.js';

/** What a worker process needs besides the planned memory: Node, the compiled program, buffers of the system. */
export const PROCESS_BYTES = 96 * 2 ** 20;

/** Bytes of the host that `count` of the plan's ranks need on one machine. */
export function machineBytes(plan: RunPlan, count: number): number {
  const onHost = plan.device === 'cpu';
  return plan.ranks.slice(0, count).reduce((sum, { totalBytes, hostBytes, copyBytes }) => {
    return sum + (onHost ? totalBytes : 0) + hostBytes + copyBytes + PROCESS_BYTES;
  }, 0);
}

/** Memory that this machine, or the container that we are in, can still give. */
export function availableBytes(): number {
  // Node 20.13 and newer knows the container's limit.
  return (process as { availableMemory?: () => number }).availableMemory?.() ?? freemem();
}

/** The regions of a rank that hold a MiB or more, the largest first: `optimizer 30.0 GiB, parameters 15.0 GiB`. */
function regionsText({ bytes }: RankPlan): string {
  const used = Object.entries(bytes).filter(([, size]) => size >= 2 ** 20);
  return used
    .sort(([, a], [, b]) => b - a)
    .map(([name, size]) => `${name} ${gib(size)}`)
    .join(', ');
}

/** Whether the plan's ranks on this machine fit its memory. GPUs have their own: of their ranks only copies in memory count. */
export function fitsMachine(plan: RunPlan, localRanks: number, available = availableBytes()): boolean {
  return (plan.device !== 'cpu' && copiesOf(plan) === 0) || machineBytes(plan, localRanks) <= available;
}

function copiesOf({ ranks }: RunPlan): number {
  return ranks.reduce((sum, { copyBytes }) => sum + copyBytes, 0);
}

/**
 * Refuses a run whose ranks on this machine do not fit its memory (exit code 4), before anything is started: all that they
 * need on the CPU, and on GPUs the copies in memory, where there are any, and what saves are staged in.
 * GPUs have their own memory; there each rank compares the same plan with what its GPU has free.
 */
export function checkMachineMemory(plan: RunPlan, localRanks: number, available = availableBytes()): void {
  if (fitsMachine(plan, localRanks, available)) return;
  const needed = machineBytes(plan, localRanks);
  const copies = copiesOf(plan);
  const without = copies === 0 ? '' : `, ${gib(copies)} of it for copies (checkpoint.non_persistent_save_interval)`;
  if (plan.device !== 'cpu') {
    const found = `${localRanks} processes need ${gib(needed)} of this machine's memory${without}, ${gib(available)} is free`;
    throw new MbridgeError('environment', 'MB_MEMORY_PLAN', found, {
      hint: 'make no copies in memory: checkpoint.non_persistent_save_interval=null; restarts then go on from the disk',
      details: { needed, available, ranks: localRanks, copies },
    });
  }
  const largest = plan.ranks.reduce((a, b) => (b.totalBytes > a.totalBytes ? b : a));
  const rank = `rank ${largest.rank} the most, ${gib(largest.totalBytes)}: ${regionsText(largest)}`;
  const found = `${localRanks} processes need ${gib(needed)} (${rank})${without}, this machine has ${gib(available)} free`;
  throw new MbridgeError('environment', 'MB_MEMORY_PLAN', found, {
    hint: 'lower model.seq_length or train.micro_batch_size, set model.recompute_granularity, or take a smaller recipe; mbridge plan shows every rank',
    details: { needed, available, ranks: localRanks, regions: largest.bytes },
  });
}

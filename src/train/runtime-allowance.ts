import type { DeviceKind } from '../config/layout.js';

/**
 * What a GPU holds beside the arena: the CUDA context, kernels, library workspaces, and buffers of every communicator.
 * Measured on H200s with CUDA 13.0, cuBLASLt 13.1, cuDNN 9.14 and NCCL 2.28 (docs/performance.md): one process without
 * communicators, groups of two, and groups of four.
 */
const CONTEXT_BYTES = 640e6;
const COMMUNICATOR_BYTES = 330e6;
const PEER_BYTES = 190e6;

/**
 * Bytes to allow for libraries and communicators on a rank, where the device cannot be asked.
 * @param groups rank lists by field; lists that are equal are one communicator
 */
export function runtimeAllowance(
  device: DeviceKind,
  rank: number,
  groups: Readonly<Record<string, readonly (readonly number[])[]>>,
): number {
  if (device === 'cpu') return 0;
  const lists = Object.values(groups).flatMap((field) => field.filter((ranks) => ranks.includes(rank)));
  const distinct = new Map(lists.filter((ranks) => ranks.length > 1).map((ranks) => [ranks.join(), ranks.length]));
  let bytes = CONTEXT_BYTES;
  for (const size of distinct.values()) bytes += COMMUNICATOR_BYTES + PEER_BYTES * (size - 1);
  return bytes;
}

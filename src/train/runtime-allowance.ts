import type { DeviceKind } from '../config/layout.js';

/**
 * What a GPU holds beside the arena: the CUDA context, kernels, library workspaces, and buffers of every communicator.
 * Measured on H200s with CUDA 13.0, cuBLASLt 13.1, cuDNN 9.14 and NCCL 2.28 (docs/performance.md): one process without
 * communicators, groups of two, and groups of four.
 */
const CONTEXT_BYTES = 640e6;
const COMMUNICATOR_BYTES = 330e6;
const PEER_BYTES = 190e6;
/** However large a group is, its rings and trees connect a rank to few others: as many as in a node of 8. */
const MOST_PEERS = 7;

/**
 * Bytes to allow each rank for libraries and communicators, where the device cannot be asked.
 * @param models rank lists of each model's groups, by field; those of a model that are equal are one communicator
 */
export function runtimeAllowances(
  device: DeviceKind,
  worldSize: number,
  ...models: readonly Readonly<Record<string, readonly (readonly number[])[]>>[]
): number[] {
  const bytes = new Array<number>(worldSize).fill(device === 'cpu' ? 0 : CONTEXT_BYTES);
  if (device === 'cpu') return bytes;
  for (const groups of models) {
    const lists = Object.values(groups)
      .flat()
      .filter((ranks) => ranks.length > 1);
    const distinct = new Map(lists.map((ranks) => [ranks.join(), ranks])).values();
    for (const ranks of distinct) {
      const each = COMMUNICATOR_BYTES + PEER_BYTES * Math.min(ranks.length - 1, MOST_PEERS);
      for (const rank of ranks) bytes[rank] = (bytes[rank] ?? 0) + each;
    }
  }
  return bytes;
}

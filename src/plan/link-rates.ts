import type { RunLayout } from '../config/layout.js';
import type { DeviceProfile } from './device-profiles.js';

/** Bytes a second that each rank of a group sends in a collective, of a layout's groups. */
export interface LinkRates {
  readonly tp: number;
  readonly cp: number;
  /** The ranks that hold the same parameters: dp and cp together. */
  readonly dpCp: number;
  /** Between neighbours of a pipeline. */
  readonly pp: number;
}

/**
 * The rates of a layout's groups, whose ranks follow each other in the order tp, cp, dp, pp. A group that does not fit into a
 * node is as fast as the network interfaces that its ranks of one node have together.
 */
export function linkRates({ tp, cp, dp }: RunLayout, profile: DeviceProfile): LinkRates {
  const { perNode } = profile;
  const rate = (stride: number, size: number): number => {
    const [node, network] = [profile.nodeGBs * 1e9, profile.networkGBs * 1e9];
    if (stride * size <= perNode) return node;
    return Math.min(node, network * Math.max(1, Math.floor(perNode / stride)));
  };
  return { tp: rate(1, tp), cp: rate(tp, cp), dpCp: rate(tp, dp * cp), pp: rate(tp * cp * dp, 2) };
}

import type { DeviceKind } from '../../config/layout.js';
import type { RunConfig } from '../../config/schema.js';
import type { DeviceProfile } from '../../plan/device-profiles.js';
import type { MemoryLimit } from '../../plan/rank-settings.js';

/** What settings are ranked for. */
export interface TuneTarget {
  readonly kind: DeviceKind;
  readonly profile: DeviceProfile;
  readonly limit: MemoryLimit;
  /** Whether runs can be started on it here. */
  readonly here: boolean;
}

export interface TuneRequest {
  readonly config: RunConfig;
  /** Processes of a node, and nodes. */
  readonly nproc: number;
  readonly nodes: number;
  readonly profile: string | undefined;
}

/** The plan of a device is right to 2 %. */
const PLAN_SHARE = 0.98;
/** Of a device that is not in our table: large products reach its measured rate, attention this part of it, a link a tenth of a copy. */
const ATTENTION_SHARE = { forward: 0.9, backward: 0.75 };
const LINK_SHARE = 0.1;

/** The devices that are named, else those of this machine, whose rates are looked up, or measured within a second. */
export async function tuneTarget({ config, nproc, nodes, profile: named }: TuneRequest): Promise<TuneTarget> {
  const { planTarget } = await import('../shared/plan-target.js');
  const { chooseDevice, requireDevices } = await import('../../engine/devices.js');
  const kind = named === undefined ? chooseDevice(config) : 'cuda';
  const { ranks_per_gpu: ranksPerGpu } = config.dist;
  // Profiles count devices; a node of this run has as many as its processes take.
  const perNode = Math.ceil(nproc / (kind === 'cuda' ? ranksPerGpu : 1));
  if (kind === 'cpu') return cpuTarget(nproc, perNode);
  const target = await planTarget(named, kind);
  if (named === undefined && nodes === 1) requireDevices(kind, nproc, ranksPerGpu);
  const known = target?.profile ?? (await measuredProfile('cuda', 1));
  const profile = { ...known, perNode };
  const { fitOf } = await import('../../plan/fit.js');
  const limit: MemoryLimit = {
    usableBytes: PLAN_SHARE * profile.memoryBytes,
    neededBytes: (plan) => fitOf(plan, profile.memoryBytes, ranksPerGpu).neededBytes,
  };
  return { kind, profile, limit, here: named === undefined && nodes === 1 };
}

/** Ranks of a CPU share its cores, its memory, and the way there. */
async function cpuTarget(nproc: number, perNode: number): Promise<TuneTarget> {
  const { availableBytes, machineBytes } = await import('../../train/machine-memory.js');
  const { loadBinding } = await import('../../engine/load.js');
  const cores = loadBinding().cpuCount();
  const one = await measuredProfile('cpu', Math.max(1, Math.floor(cores / nproc)));
  const crowd = Math.max(1, nproc / cores);
  const profile: DeviceProfile = {
    ...one,
    productTflopsFp32: one.productTflopsFp32 / crowd,
    memoryGBs: one.memoryGBs / nproc,
    nodeGBs: one.nodeGBs / nproc,
    perNode,
  };
  const limit = {
    usableBytes: PLAN_SHARE * availableBytes(),
    neededBytes: (plan: Parameters<typeof machineBytes>[0]) => machineBytes(plan, nproc),
  };
  return { kind: 'cpu', profile, limit, here: true };
}

/** What a device of this machine does, by one product and one copy. */
async function measuredProfile(kind: DeviceKind, threads: number): Promise<DeviceProfile> {
  const { measureCeilings, openSession } = await import('../../bench/device/session.js');
  const { hasFp8 } = await import('../../train/fp8-device.js');
  const session = openSession(kind, threads, kind === 'cpu' ? 'f32' : 'bf16');
  try {
    const { copyGBs, gemmTflops } = measureCeilings(session);
    const { name, totalBytes, peakTflops, capability } = session.device.info;
    return {
      name,
      memoryBytes: totalBytes,
      peakTflops,
      productTflops: gemmTflops,
      productTflopsFp32: kind === 'cpu' ? gemmTflops : gemmTflops / 16,
      // Of Hopper's published peaks, that of e4m3 is twice that of bf16; blocks cost some of it.
      productTflopsFp8: hasFp8(capability) ? 1.6 * gemmTflops : null,
      attentionTflops: {
        forward: ATTENTION_SHARE.forward * gemmTflops,
        backward: ATTENTION_SHARE.backward * gemmTflops,
      },
      memoryGBs: copyGBs,
      nodeGBs: LINK_SHARE * copyGBs,
      networkGBs: 1,
      perNode: 1,
    };
  } finally {
    session.timer.dispose();
    session.device.close();
  }
}

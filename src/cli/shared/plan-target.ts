import type { DeviceKind } from '../../config/layout.js';
import type { DeviceProfile } from '../../plan/device-profiles.js';

/** The GPUs that a run is planned for. */
export interface PlanTarget {
  readonly name: string;
  readonly usableBytes: number;
  /** Null for a kind of GPU that we have no figures of. */
  readonly profile: DeviceProfile | null;
}

/** The flag that names them, of plan and of tune. */
export const PROFILE_FLAG = '--gpu, --device-profile <name>';

/**
 * Those that are named, else those that are here; undefined where there are none, or on the CPU.
 * @throws MbridgeError MB_USAGE for a name that is unknown
 */
export async function planTarget(named: string | undefined, device: DeviceKind): Promise<PlanTarget | undefined> {
  const { findProfile, profileOf } = await import('../../plan/device-profiles.js');
  if (named !== undefined) {
    const profile = findProfile(named);
    return { name: profile.name, usableBytes: profile.memoryBytes, profile };
  }
  const { chooseDevice, visibleGpus } = await import('../../engine/devices.js');
  if (device === 'cpu' || chooseDevice({ dist: { device: 'auto' } }) === 'cpu') return undefined;
  const here = await deviceHere();
  if (here === undefined) return undefined;
  const { name, totalBytes } = here;
  const profile = profileOf(here);
  return {
    name: profile?.name ?? name,
    usableBytes: totalBytes,
    profile: profile === undefined ? null : { ...profile, perNode: visibleGpus() },
  };
}

/** The first GPU; undefined where it cannot be opened now, which is no fault of a plan. */
async function deviceHere(): Promise<{ readonly name: string; readonly totalBytes: number } | undefined> {
  const { openDevice } = await import('../../engine/open-device.js');
  try {
    const device = openDevice('cuda', 0, 1);
    const { name, totalBytes } = device.info;
    device.close();
    return { name, totalBytes };
  } catch (error) {
    // The engine's own refusals have a code.
    if (error instanceof Error && 'code' in error) return undefined;
    throw error;
  }
}

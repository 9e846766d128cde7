import type { Device } from '../../engine/device.js';

interface Described {
  readonly runtime?: string;
  readonly driver?: { readonly supports: string | null };
  readonly libraries?: Readonly<Record<string, { readonly name: string; readonly version: string | null }>>;
  readonly kernels?: string;
}

/** Versions of everything that decides speed, as the backend describes itself. */
export function versionsOf(device: Device, mbridge: string): Record<string, string> {
  const described = JSON.parse(device.binding.describe(device.kind)) as Described;
  const libraries = Object.values(described.libraries ?? {}).map(({ name, version }) => [name, version ?? 'missing']);
  return {
    mbridge,
    'Node.js': process.versions.node,
    ...(described.runtime === undefined ? {} : { CUDA: described.runtime }),
    ...(described.driver?.supports == null ? {} : { 'driver for CUDA': described.driver.supports }),
    ...(described.kernels === undefined ? {} : { kernels: described.kernels }),
    ...(Object.fromEntries(libraries) as Record<string, string>),
  };
}

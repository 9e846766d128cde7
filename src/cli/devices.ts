import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DeviceKind } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import { MbridgeError } from '../errors.js';
import { packageRoot } from '../run/package-root.js';

type Env = Readonly<Record<string, string | undefined>>;

/** GPUs that this process may use, counted without loading CUDA. */
export function visibleGpus(env: Env = process.env, deviceFolder = '/dev'): number {
  const present = existsSync(deviceFolder)
    ? readdirSync(deviceFolder).filter((name) => /^nvidia\d+$/.test(name)).length
    : 0;
  const chosen = env['CUDA_VISIBLE_DEVICES'];
  if (chosen === undefined) return present;
  // As CUDA reads it: the list ends at the first entry that is no device.
  const entries = chosen.split(',').map((entry) => entry.trim());
  const end = entries.findIndex((entry) => entry === '' || entry.startsWith('-'));
  return Math.min(present, end < 0 ? entries.length : end);
}

/** Whether the CUDA engine was built with this package. */
export function hasCudaEngine(): boolean {
  return existsSync(join(packageRoot(), 'native', 'build', 'libmbridge_cuda.so'));
}

/** The device of a run, and how many of it there are (Infinity on the CPU, whose cores are shared). */
export function chooseDevice(cfg: RunConfig): { device: DeviceKind; count: number } {
  const gpus = visibleGpus();
  const cpu = { device: 'cpu', count: Infinity } as const;
  if (cfg.dist.device === 'cpu') return cpu;
  if (gpus > 0 && hasCudaEngine()) return { device: 'cuda', count: gpus };
  if (cfg.dist.device === 'auto') return cpu;
  const found = gpus === 0 ? 'no NVIDIA GPU is visible here' : 'the CUDA engine is not built';
  throw new MbridgeError('environment', 'MB_DEVICE', `device cuda is asked for, but ${found}`, {
    hint:
      gpus === 0
        ? 'check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu'
        : 'install the CUDA toolkit (nvcc) and run npm run build, or use --device cpu',
    details: { gpus },
  });
}

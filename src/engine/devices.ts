import { existsSync, readdirSync } from 'node:fs';
import type { DeviceKind } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import { cudaEngineHint, findCudaEngine } from './find.js';
import { MbridgeError } from '../base/errors.js';

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

/** GPUs that `ranks` processes of one machine take where `ranksPerGpu` neighbours share each. */
export function gpusFor(ranks: number, ranksPerGpu: number): number {
  return Math.ceil(ranks / ranksPerGpu);
}

/** Index of the GPU of a local rank. */
export function deviceIndexOf(localRank: number, ranksPerGpu: number): number {
  return Math.floor(localRank / ranksPerGpu);
}

/** Processes where nobody says how many: one a GPU, or as many as are to share each. */
export function defaultProcesses(device: DeviceKind, ranksPerGpu = 1): number {
  return device === 'cuda' ? Math.max(1, visibleGpus()) * ranksPerGpu : 1;
}

/** The device that a run takes here. Throws MB_DEVICE (exit code 4) where GPUs are asked for and cannot be used. */
export function chooseDevice(cfg: { readonly dist: Pick<RunConfig['dist'], 'device'> }): DeviceKind {
  const gpus = visibleGpus();
  if (cfg.dist.device === 'cpu') return 'cpu';
  if (gpus > 0 && existsSync(findCudaEngine().path)) return 'cuda';
  if (cfg.dist.device === 'auto') return 'cpu';
  const found = gpus === 0 ? 'no NVIDIA GPU is visible here' : 'there is no CUDA engine';
  throw new MbridgeError('environment', 'MB_DEVICE', `device cuda is asked for, but ${found}`, {
    hint:
      gpus === 0
        ? 'check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu'
        : `${cudaEngineHint()}; or use --device cpu`,
    details: { gpus },
  });
}

/** Why a run that could have any device leaves the GPUs of this machine unused; undefined where it does not. */
export function unusedGpus(env: Env = process.env, gpus = visibleGpus(env)): string | undefined {
  if (gpus === 0 || existsSync(findCudaEngine(env).path)) return undefined;
  return `the GPUs here are not used, for there is no CUDA engine: ${cudaEngineHint()}`;
}

/** Every process on this machine needs a GPU, of its own unless `ranksPerGpu` are to share each. */
export function requireDevices(device: DeviceKind, processes: number, ranksPerGpu: number, gpus = visibleGpus()): void {
  const needed = gpusFor(processes, ranksPerGpu);
  if (device === 'cpu' || needed <= gpus) return;
  const share = Math.ceil(processes / Math.max(1, gpus));
  throw new MbridgeError(
    'environment',
    'MB_DEVICE',
    `${processes} processes need ${needed} GPUs, ${gpus} are visible`,
    {
      hint: `use --nproc ${gpus * ranksPerGpu}, --device cpu, or dist.ranks_per_gpu=${share} to try the layout on fewer GPUs`,
      details: { processes, needed, gpus },
    },
  );
}

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { MbridgeError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import type { NativeBinding } from './binding.js';
import { Device } from './device.js';
import { loadBinding } from './load.js';

/** Where the CUDA engine is looked for: MBRIDGE_CUDA_ENGINE, then this package's build. */
export function cudaEnginePath(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const named = env['MBRIDGE_CUDA_ENGINE'];
  return named ? resolve(named) : join(packageRoot(), 'native', 'build', 'libmbridge_cuda.so');
}

/** Loads the CUDA engine into the addon. @throws MbridgeError exit 4 with the reason */
export function loadCudaEngine(binding: NativeBinding): void {
  const path = cudaEnginePath();
  const hint = 'run `mbridge doctor`; `mbridge build` builds the engine where nvcc is installed';
  if (!existsSync(path)) {
    throw new MbridgeError('environment', 'MB_CUDA_ENGINE', `the CUDA engine is not built: ${path} is not there`, {
      hint,
    });
  }
  try {
    binding.loadCuda(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new MbridgeError('environment', 'MB_CUDA_ENGINE', `the CUDA engine does not load: ${reason}`, {
      hint,
      cause,
    });
  }
}

/**
 * Opens the device of a worker.
 * @param index GPU of this process; of no meaning on the CPU
 * @param threads CPU threads of this process
 */
export function openDevice(kind: 'cpu' | 'cuda', index: number, threads: number): Device {
  const binding = loadBinding();
  if (kind === 'cuda') loadCudaEngine(binding);
  return Device.open(binding, kind, kind === 'cuda' ? index : 0, threads);
}

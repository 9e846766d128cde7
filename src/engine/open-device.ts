import { existsSync } from 'node:fs';
import { MbridgeError } from '../base/errors.js';
import { packageVersion } from '../base/package-root.js';
import type { NativeBinding } from './binding.js';
import { Device } from './device.js';
import { CUDA_PACKAGE, cudaEngineHint, findCudaEngine } from './find.js';
import { loadBinding } from './load.js';

/** Loads the CUDA engine into the addon. @throws MbridgeError exit 4 with the reason */
export function loadCudaEngine(binding: NativeBinding): void {
  const { path, from, version } = findCudaEngine();
  const hint = from === 'MBRIDGE_CUDA_ENGINE' ? 'point MBRIDGE_CUDA_ENGINE at another, or unset it' : cudaEngineHint();
  const refuse = (message: string, cause?: unknown): MbridgeError =>
    new MbridgeError('environment', 'MB_CUDA_ENGINE', message, { hint, cause, details: { path } });
  if (!existsSync(path)) {
    const other = from === null ? `, nor is the package ${CUDA_PACKAGE}` : '';
    throw refuse(`there is no CUDA engine: ${path} is not there${other}`);
  }
  if (version !== undefined && version !== packageVersion()) {
    throw refuse(`${CUDA_PACKAGE} ${version} does not belong to mbridge ${packageVersion()}`);
  }
  try {
    binding.loadCuda(path);
  } catch (cause) {
    throw refuse(`the CUDA engine does not load: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
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

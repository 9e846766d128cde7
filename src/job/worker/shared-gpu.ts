import { existsSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Lets CUDA and NCCL take a process that shares its GPU; to be called before either is loaded. What is set already
 * stays. Under CUDA's multi-process service each rank gets its part of the multiprocessors: kernels that wait for
 * another rank must never fill what that rank needs.
 */
export function prepareSharedGpu(ranksPerGpu: number, env: NodeJS.ProcessEnv = process.env): void {
  if (ranksPerGpu === 1) return;
  env['NCCL_MULTI_RANK_GPU_ENABLE'] ??= '1';
  env['CUDA_MPS_ACTIVE_THREAD_PERCENTAGE'] ??= String(Math.max(1, Math.floor(100 / ranksPerGpu)));
}

/** How ranks that share a GPU run, for the log. */
export function describeSharing(ranksPerGpu: number, env: NodeJS.ProcessEnv = process.env): string {
  // Where CUDA looks for the service.
  const control = join(env['CUDA_MPS_PIPE_DIRECTORY'] ?? '/tmp/nvidia-mps', 'control');
  const how = existsSync(control)
    ? "at the same time, under CUDA's multi-process service"
    : 'in turns; nvidia-cuda-mps-control -d lets them run at the same time';
  return `${ranksPerGpu} ranks share each GPU ${how}`;
}

/** Index of the GPU of a local rank where `ranksPerGpu` neighbours share each. */
export function deviceIndexOf(localRank: number, ranksPerGpu: number): number {
  return Math.floor(localRank / ranksPerGpu);
}

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

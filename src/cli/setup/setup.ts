import type { Command } from 'commander';

/** `mbridge setup-cuda` and `mbridge build`: what an installation lacks for GPUs. */
export function addSetup(program: Command): void {
  program
    .command('setup-cuda')
    .description("install cuBLAS, NCCL and cuDNN from NVIDIA's pip packages (1.6 GB), where the system has none")
    .argument('[options...]', "pip's own options, such as --index-url URL")
    .option('--into <folder>', "where to; default: this package's .cuda, where runs look for them")
    .allowUnknownOption()
    .action(async (pipOptions: string[], { into }: { into?: string }) => {
      const { setupCuda } = await import('./setup-cuda.js');
      await setupCuda(pipOptions, into);
    });
  program
    .command('build')
    .description('build the native engine anew on this machine: for its CPU, and for CUDA where nvcc is')
    .action(async () => {
      const { buildEngine } = await import('./build-engine.js');
      await buildEngine();
    });
}

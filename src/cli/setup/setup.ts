import type { Command } from 'commander';

/** `mbridge setup-cuda` and `mbridge build`: what an installation lacks for GPUs. */
export function addSetup(program: Command): void {
  program
    .command('setup-cuda')
    .description(
      "what GPUs need: the CUDA engine, built by nvcc where there is none, and cuBLAS, NCCL and cuDNN from NVIDIA's pip packages (1.6 GB)",
    )
    .argument('[options...]', "pip's own options, such as --index-url URL")
    .option(
      '--into <folder>',
      'the libraries alone, and where to; default: beside the engine, where runs look for them',
    )
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
      await buildEngine('all');
    });
}

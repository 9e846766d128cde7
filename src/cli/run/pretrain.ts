import type { Command } from 'commander';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { addRestartOption, addRunOptions, resolveRequest, type RunOptions } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge pretrain qwen3-tiny --nproc 2 --tp-size 2            a small model, on the CPU too
  mbridge pretrain qwen3-tiny dataset.path=my.txt              on a text of your own
  mbridge pretrain Qwen/Qwen3-0.6B --tp 2 optimizer.lr=1e-4    names and flags as others write them
  mbridge pretrain my.yaml --nproc 8 --max-restarts 3          a run as a file, which begins again where it crashes
  mbridge resume                                               goes on with the last run

A run saves in its own folder, runs/<time>-<name>/checkpoints, when it ends or is stopped, and on its way where it is
long; checkpoint.save=DIR saves elsewhere, checkpoint.save=null nowhere. mbridge config keys lists what can be set.`;

/** `mbridge pretrain`: starts the workers, or becomes one where torchrun, srun or mpirun has started this process. */
export function addPretrain(program: Command): void {
  addRestartOption(addRunOptions(program.command('pretrain')))
    .description('train a model from scratch or from given weights')
    .addHelpText('after', EXAMPLES)
    .action(async (args: string[], options: RunOptions & { maxRestarts?: number }) => {
      const { config, name, origins } = await resolveRequest(args, options);
      const { trainAsCommand } = await import('../../run-distributed.js');
      process.stdout.off('error', exitOnClosedPipe);
      const { nproc, json = false, maxRestarts } = options;
      const savesInRunFolder = !origins.has('checkpoint.save');
      process.exitCode = await trainAsCommand({ config, name, origins, nproc, json, maxRestarts, savesInRunFolder });
    });
}

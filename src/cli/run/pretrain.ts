import type { Command } from 'commander';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { addNodeOptions, nodePlace, type NodeOptions } from '../shared/node-options.js';
import { addRestartOption, addRunOptions, resolveRequest, type RunOptions } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge pretrain qwen3-tiny --nproc 2 --tp-size 2            a small model, on the CPU too
  mbridge pretrain qwen3-tiny dataset.path=my.txt              on a text of your own
  mbridge pretrain Qwen/Qwen3-0.6B --tp 2 optimizer.lr=1e-4    names and flags as others write them
  mbridge pretrain my.yaml --nproc 8 --max-restarts 3          a run as a file, which begins again where it crashes
  mbridge pretrain my.yaml --nproc 8 --nnodes 2 --node-rank 0 --rdzv-endpoint node-a:29500    on node-a, one of two
  mbridge resume                                               goes on with the last run

A run saves in its own folder, runs/<time>-<name>/checkpoints, when it ends or is stopped, and on its way where it is
long; checkpoint.save=DIR saves elsewhere, checkpoint.save=null nowhere. mbridge config keys lists what can be set.`;

/** `mbridge pretrain`: starts the workers, or becomes one where torchrun, srun or mpirun has started this process. */
export function addPretrain(program: Command): void {
  addNodeOptions(addRestartOption(addRunOptions(program.command('pretrain'))))
    .description('train a model from scratch or from given weights')
    .addHelpText('after', EXAMPLES)
    .action(async (args: string[], options: RunOptions & NodeOptions & { maxRestarts?: number }) => {
      const nodes = nodePlace(options);
      const { config, name, origins } = await resolveRequest(args, options);
      const { trainAsCommand } = await import('../../run-distributed.js');
      process.stdout.off('error', exitOnClosedPipe);
      const { nproc, json = false, maxRestarts } = options;
      const savesInRunFolder = !origins.has('checkpoint.save');
      const how = { nproc, nodes, json, maxRestarts, savesInRunFolder };
      process.exitCode = await trainAsCommand({ config, name, origins, ...how });
    });
}

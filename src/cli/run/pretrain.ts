import type { Command } from 'commander';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { addRunOptions, resolveRequest, type RunOptions } from '../shared/run-options.js';

/** `mbridge pretrain`: starts the workers, or becomes one where torchrun, srun or mpirun has started this process. */
export function addPretrain(program: Command): void {
  addRunOptions(program.command('pretrain'))
    .description('train a model from scratch or from given weights')
    .action(async (args: string[], options: RunOptions) => {
      const request = await resolveRequest(args, options);
      const { pretrain } = await import('../../run-distributed.js');
      process.stdout.off('error', exitOnClosedPipe);
      const { config, name, origins } = request;
      const { nproc, json = false } = options;
      process.exitCode = await pretrain(config, { name, origins, nproc, json });
    });
}

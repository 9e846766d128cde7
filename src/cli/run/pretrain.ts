import type { Command } from 'commander';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { addRunOptions, resolveRequest, type RunOptions } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge pretrain qwen3-tiny --nproc 2 --tp-size 2            a small model, on the CPU too
  mbridge pretrain qwen3-tiny dataset.path=my.txt              on a text of your own
  mbridge pretrain qwen3-tiny checkpoint.save=DIR              saves at the end and when it is stopped
  mbridge pretrain qwen3-tiny checkpoint.save=DIR checkpoint.load=DIR   goes on from there
  mbridge pretrain my.yaml --nproc 8 optimizer.lr=1e-4         a run as a file; values on the line win

mbridge show-config <recipe> prints every key with its value; docs/configuration.md says what each does.`;

/** `mbridge pretrain`: starts the workers, or becomes one where torchrun, srun or mpirun has started this process. */
export function addPretrain(program: Command): void {
  addRunOptions(program.command('pretrain'))
    .description('train a model from scratch or from given weights')
    .addHelpText('after', EXAMPLES)
    .action(async (args: string[], options: RunOptions) => {
      const request = await resolveRequest(args, options);
      const { pretrain } = await import('../../run-distributed.js');
      process.stdout.off('error', exitOnClosedPipe);
      const { config, name, origins } = request;
      const { nproc, json = false } = options;
      process.exitCode = await pretrain(config, { name, origins, nproc, json });
    });
}

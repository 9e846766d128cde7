import type { Command } from 'commander';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { refuseNodeOptions } from '../shared/node-options.js';
import {
  addLayoutOptions,
  addRestartOption,
  configFlags,
  overridesOf,
  type RunOptions,
} from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge resume                                       the last run of runs/, with the configuration that it had
  mbridge resume runs/20261128-120000-qwen3-tiny       that run
  mbridge resume train.train_iters=200                 further than it was to go
  mbridge resume --nproc 4 --pp-size 2                 on another layout

It goes on from the run's last checkpoint, in its folder: metrics.ndjson goes on too.`;

/** `mbridge resume`: goes on with an earlier run. */
export function addResume(program: Command): void {
  const command = program
    .command('resume')
    .usage('[run] [section.key=value ...] [options]')
    .description('go on with a run from its last checkpoint')
    .argument('[run]', "a run's folder, or its name in runs/; default: the last run there")
    .argument('[overrides...]', 'section.key=value texts, which win over what the run had');
  refuseNodeOptions(addRestartOption(addLayoutOptions(command)))
    .addHelpText('after', EXAMPLES)
    .action(async (first: string | undefined, rest: string[], options: RunOptions & { maxRestarts?: number }) => {
      const { isOverride } = await import('../../config/overrides.js');
      const { resume } = await import('../../run-resume.js');
      const named = first !== undefined && !isOverride(first);
      const texts = first === undefined || named ? rest : [first, ...rest];
      const values = { flags: await configFlags(options), overrides: await overridesOf(texts) };
      const { nproc, json = false, maxRestarts } = options;
      process.stdout.off('error', exitOnClosedPipe);
      process.exitCode = await resume({ run: named ? first : undefined, ...values, nproc, json, maxRestarts });
    });
}

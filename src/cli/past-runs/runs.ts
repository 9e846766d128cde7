import type { Command } from 'commander';
import { outputLine } from '../../outputs/line.js';
import { parseCount } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge runs                              what ran here, the newest last
  mbridge runs --json | jq .loss            one JSON object a run
  mbridge runs compare 20261128-120000-qwen3-tiny 20261128-130000-qwen3-tiny`;

/** `mbridge runs`: what the folders of runs tell. */
export function addRuns(program: Command): void {
  const runs = program
    .command('runs')
    .description('list the runs of runs/, or compare two')
    .addHelpText('after', EXAMPLES);
  runs
    .command('list', { isDefault: true })
    .description('state, updates, loss and time of each run (what `mbridge runs` does)')
    .argument('[folder]', 'folder of runs', 'runs')
    .option('--last <n>', 'only the newest n', parseCount)
    .option('--json', 'one JSON object a line')
    .action(async (folder: string, { last, json }: { last?: number; json?: boolean }) => {
      const { listRuns } = await import('../../job/shared/run-list.js');
      const { describeRun, runsTable } = await import('./table.js');
      const found = listRuns(folder);
      const shown = (last === undefined ? found : found.slice(-last)).map(describeRun);
      if (json) for (const run of shown) process.stdout.write(outputLine('run', run));
      else process.stdout.write(shown.length === 0 ? `no runs in ${folder}\n` : runsTable(shown));
    });
  runs
    .command('compare')
    .description('what two runs were set to, where their losses part, and what they came to')
    .argument('<a>', "a run's folder, or its name in runs/")
    .argument('<b>', 'another')
    .option('--json', 'as JSON')
    .action(async (a: string, b: string, { json }: { json?: boolean }) => {
      const { compareRuns, comparisonText } = await import('./compare.js');
      const { findRun } = await import('../../job/shared/run-list.js');
      const compared = compareRuns(findRun(a), findRun(b));
      process.stdout.write(json ? outputLine('comparison', compared) : comparisonText(compared));
    });
}

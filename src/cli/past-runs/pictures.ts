import { join } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { outputLine } from '../../outputs/line.js';
import { METRICS, X_AXES, type MetricKey, type XAxis } from '../../trace/view/metrics.js';

const REPORT_EXAMPLES = `
Examples:
  mbridge report                            of the last run of runs/, as report.html in its folder
  mbridge report run-a run-b -o both.html   two runs over each other`;

/** `mbridge report`: runs as a page to keep or to send. */
export function addReport(program: Command): void {
  program
    .command('report')
    .description('write a run, or several over each other, as one HTML file that needs nothing else')
    .argument('[runs...]', 'folders of runs, or their names in runs/; the last run where none is given')
    .option('-o, --output <file>', "the file; report.html in the run's folder, of several here")
    .option('--json', 'as JSON')
    .addHelpText('after', REPORT_EXAMPLES)
    .action(async (runs: string[], { output, json }: { output?: string; json?: boolean }) => {
      const { REPORT_FILE, reportOf } = await import('../../trace/report.js');
      const found = await findRuns(runs);
      const [only, ...others] = found;
      const file = output ?? (only !== undefined && others.length === 0 ? join(only.folder, REPORT_FILE) : REPORT_FILE);
      await write(file, await reportOf(found), json);
    });
}

/** Names of metrics on the command line, also those of the columns of step lines. */
const NAMES: Readonly<Record<string, MetricKey>> = {
  ...Object.fromEntries(METRICS.map(({ key }) => [key, key])),
  ...{ val: 'validation', norm: 'grad_norm', tokens_per_s: 'tokens_per_s_per_device', memory: 'memory_bytes' },
};

const PLOT_EXAMPLES = `
Examples:
  mbridge plot                              loss and validation loss of the last run, as loss.svg
  mbridge plot run-a run-b -o norms.svg --metric norm,lr --log --x tokens

Metrics: ${Object.keys(NAMES).join(', ')}`;

interface PlotFlags {
  readonly output: string;
  readonly metric: readonly MetricKey[];
  readonly x: XAxis;
  readonly log?: boolean;
  readonly smooth: number;
  readonly json?: boolean;
}

/** `mbridge plot`: curves of runs as a picture. */
export function addPlot(program: Command): void {
  program
    .command('plot')
    .description('draw curves of runs as a picture (SVG)')
    .argument('[runs...]', 'folders of runs, or their names in runs/; the last run where none is given')
    .option('-o, --output <file>', 'the picture', 'loss.svg')
    .option('--metric <names>', 'what to draw, a panel each', parseMetrics, ['loss', 'validation'])
    .addOption(new Option('--x <axis>', 'what it goes over').choices(X_AXES).default('step'))
    .option('--log', 'logarithmic scale of the numbers')
    .option('--smooth <weight>', 'of the values before, 0 to below 1; 0 draws what was measured', parseWeight, 0)
    .option('--json', 'as JSON')
    .addHelpText('after', PLOT_EXAMPLES)
    .action(async (runs: string[], { output, metric, x, log = false, smooth, json }: PlotFlags) => {
      const { plotSvg } = await import('../../trace/plot.js');
      const { readRunsToShow } = await import('../../trace/whole-run.js');
      const { MbridgeError } = await import('../../base/errors.js');
      const whole = await readRunsToShow(await findRuns(runs));
      const picture = plotSvg(whole, { metrics: metric, axis: x, log, smoothing: smooth });
      if (picture === undefined) {
        throw new MbridgeError('io', 'MB_NOTHING_TO_PLOT', `no run has a number of ${metric.join(', ')}`, {
          hint: 'name another --metric; mbridge plot --help lists them',
        });
      }
      await write(output, picture, json);
    });
}

async function findRuns(named: readonly string[]) {
  const { findRun } = await import('../../job/shared/run-list.js');
  return named.length === 0 ? [findRun(undefined)] : named.map(findRun);
}

async function write(file: string, content: string, json = false): Promise<void> {
  const { writeAtomically } = await import('../../job/shared/run-folder.js');
  writeAtomically(file, content);
  process.stdout.write(json ? outputLine('result', { ok: true, file }) : `${file}\n`);
}

function parseMetrics(text: string): MetricKey[] {
  return text.split(',').map((name) => {
    const key = Object.hasOwn(NAMES, name) ? NAMES[name] : undefined;
    if (key === undefined) throw new InvalidArgumentError(`Expected some of ${Object.keys(NAMES).join(', ')}.`);
    return key;
  });
}

function parseWeight(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && value < 1) return value;
  throw new InvalidArgumentError('Expected a number from 0 to below 1.');
}

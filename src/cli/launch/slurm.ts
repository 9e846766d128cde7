import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { MbridgeError } from '../../base/errors.js';
import { packageRoot } from '../../base/package-root.js';
import { runCommand } from '../../base/run-command.js';
import { shellWord } from '../../base/shell-word.js';
import { parseCount, parseRestarts } from '../shared/run-options.js';
import { checkCommand, describeRun, usage, type Machines } from './cluster-run.js';
import { outputLine } from '../../outputs/line.js';
import { collect, parseLine, tellJob, writeJob } from './job-file.js';
import { slurmScript, type SlurmProgram } from './slurm-script.js';

const EXAMPLES = `
Examples:
  mbridge launch slurm --nodes 2 --gpus-per-node 8 --time 4:00:00 -- pretrain qwen3-4b --tp-size 8
  mbridge launch slurm --gpus-per-node 8 -o job.sh -- pretrain my.yaml && sbatch job.sh
  mbridge launch slurm --nodes 4 --gpus-per-node 8 --time 1-00 --requeue --submit -- pretrain qwen3-4b
  mbridge launch slurm --nodes 2 --gpus-per-node 8 --bundle mbridge-0.1.0-linux-x64.tar.xz -- pretrain qwen3-4b
  mbridge launch slurm --gpus-per-node 8 --container-image mbridge.sqsh --sbatch=--exclusive -- pretrain qwen3-4b

The command after -- is resolved and planned first: what is wrong with it is said now, not after the queue. In the job a
rank that crashed or hung (exit codes 5, 6) starts the run again from its last checkpoint; --grace seconds before the time
limit it stops and saves, and with --requeue the job waits for its next turn. docs/several-nodes.md says more.`;

/** What commander parses. */
interface SlurmFlags {
  readonly nodes: number;
  readonly gpusPerNode?: number;
  readonly ntasksPerNode?: number;
  readonly cpusPerTask?: number;
  readonly time?: string;
  readonly partition?: string;
  readonly account?: string;
  readonly qos?: string;
  readonly jobName?: string;
  readonly output: string;
  readonly sbatch: readonly string[];
  readonly grace: number;
  readonly requeue?: boolean;
  readonly maxRestarts: number;
  readonly containerImage?: string;
  readonly containerMount: readonly string[];
  readonly containerRuntime?: string;
  readonly bundle?: string;
  readonly file?: string;
  readonly submit?: boolean;
  readonly json?: boolean;
}

/** `mbridge launch slurm`: writes a batch script, or submits it. */
export function addSlurm(parent: Command): void {
  parent
    .command('slurm')
    .usage('[options] -- pretrain <recipe|file.yaml> [section.key=value ...] [options]')
    .description('write an sbatch script that trains on nodes of a Slurm cluster')
    .argument('<command...>', 'after --: the command, as it would be given here')
    .option('--nodes <n>', 'nodes', parseCount, 1)
    .option('--gpus-per-node <n>', 'GPUs of each node, a task for each', parseCount)
    .option('--ntasks-per-node <n>', 'tasks of each node, for a run on the CPU', parseCount)
    .option('--cpus-per-task <n>', 'cores of each task', parseCount)
    .option(
      '--time <limit>',
      'time limit: minutes, [hours:]minutes:seconds or days-hours[:minutes[:seconds]]',
      parseTime,
    )
    .option('--partition <name>', 'partition', parseValue)
    .option('--account <name>', 'account', parseValue)
    .option('--qos <name>', 'quality of service', parseValue)
    .option('--job-name <name>', "default: the recipe's or file's name", parseValue)
    .option('--output <pattern>', "file of the job's output", parseValue, 'slurm-%j.out')
    .option(
      '--sbatch <option>',
      'another option of sbatch, as in --sbatch=--exclusive; may be repeated',
      collect(parseSbatch),
      [],
    )
    .option('--grace <seconds>', 'before the time limit the run stops and saves', parseGrace, 600)
    .option('--requeue', 'queue the job again when it has saved before its time limit, or a node failed')
    .option('--max-restarts <n>', 'of a run that crashed or hung, within the job', parseRestarts, 3)
    .option('--container-image <image>', 'run in a container (pyxis; apptainer for a .sif)', parseLine)
    .option(
      '--container-mount <from:to>',
      'a folder of the node in the container; may be repeated',
      collect(parseLine),
      [],
    )
    .option('--container-runtime <name>', 'pyxis or apptainer', parseRuntime)
    .option('--bundle <file>', 'archive of npm run bundle, which each node unpacks', parseLine)
    .option('-o, --file <file>', 'file for the script; default: stdout')
    .option('--submit', 'hand it to sbatch')
    .option('--json', 'as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (words: string[], flags: SlurmFlags) => {
      await launchSlurm(words, flags);
    });
}

async function launchSlurm(words: readonly string[], flags: SlurmFlags): Promise<void> {
  const { nodes, gpusPerNode, cpusPerTask, grace: graceS, requeue = false, maxRestarts } = flags;
  const machines: Machines = {
    nodes,
    gpus: gpusPerNode,
    cpuRanks: flags.ntasksPerNode,
    cpuFlag: '--ntasks-per-node',
  };
  const program = programOf(flags);
  const limitS = flags.time === undefined ? Infinity : secondsOf(flags.time);
  if (graceS >= limitS) {
    throw usage(
      `--grace is ${graceS} s, and --time ${flags.time} is ${limitS} s`,
      'give a shorter --grace: the run stops so long before its end',
    );
  }
  const run = await checkCommand(words, machines, requeue || maxRestarts > 0);
  const { prepareSamples } = await import('../../run-samples.js');
  await prepareSamples(run.config, true);
  const { saves } = run;
  const script = slurmScript({
    name: flags.jobName ?? parseValue(run.name.replace(/[^\w.-]+/g, '-')),
    ...{ nodes, tasksPerNode: run.ranksPerNode, gpusPerNode, cpusPerTask, graceS, requeue, maxRestarts, program },
    options: [
      ...(['time', 'partition', 'account', 'qos', 'output'] as const).flatMap((name) =>
        flags[name] === undefined ? [] : [`--${name}=${flags[name]}`],
      ),
      ...flags.sbatch,
    ],
    words: [...run.words, ...saves.words],
    ...{ logDir: run.logDir, save: saves.folder, loads: saves.loads },
  });
  process.stderr.write(`${describeRun(run, machines)}\n`);
  if (flags.submit !== true) {
    const start = flags.file === undefined ? null : `sbatch ${shellWord(flags.file)}`;
    tellJob({ text: script, file: flags.file, kind: 'script' }, start, flags.json);
    return;
  }
  const folder = flags.file === undefined ? mkdtempSync(join(tmpdir(), 'mbridge-sbatch-')) : undefined;
  try {
    const file = flags.file ?? join(folder ?? '', 'job.sh');
    writeJob({ text: script, file, kind: 'script' });
    const said = await submit(file);
    process.stdout.write(flags.json ? outputLine('result', { ok: true, submitted: said.trim() }) : said);
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

async function submit(file: string): Promise<string> {
  const { failure, stdout, stderr } = await runCommand('sbatch', [file], { timeoutMs: 120_000 });
  if (failure === undefined) return `${stdout.trim()}\n`;
  const said = stderr.trim();
  throw new MbridgeError('environment', 'MB_SBATCH', `sbatch ${file}: ${failure}${said === '' ? '' : `: ${said}`}`, {
    hint: 'submit from a node of the cluster where sbatch is; without --submit the script is only written (-o FILE)',
  });
}

function programOf({
  containerImage: image,
  containerMount: mounts,
  containerRuntime,
  bundle,
}: SlurmFlags): SlurmProgram {
  if (bundle !== undefined) {
    if (image !== undefined) throw usage('--bundle and --container-image', 'give one of them');
    if (!existsSync(bundle)) throw usage(`--bundle ${bundle}: there is no such file`, 'make it with npm run bundle');
    return { kind: 'bundle', archive: resolve(bundle) };
  }
  if (image === undefined) {
    if (mounts.length > 0 || containerRuntime !== undefined) {
      throw usage('--container-mount or --container-runtime without --container-image', 'name the image');
    }
    // A bundle starts by the file beside its package.json.
    const [start = '', bundled = ''] = ['bin/mbridge.js', 'mbridge'].map((name) => join(packageRoot(), name));
    return { kind: 'installed', command: [existsSync(bundled) ? bundled : start] };
  }
  const kind = containerRuntime ?? (image.endsWith('.sif') ? 'apptainer' : 'pyxis');
  return { kind: kind as 'pyxis' | 'apptainer', image, mounts };
}

/** sbatch reads a line by rules of its own, so what would need quotes is refused. */
function parseValue(text: string): string {
  if (/^[\w./:@%+,=[\]*-]+$/.test(text)) return text;
  throw new InvalidArgumentError('Expected letters, digits and ./:@%+,=[]*- alone.');
}

function parseSbatch(text: string): string {
  if (/^--?[a-zA-Z]/.test(text)) return parseValue(text);
  throw new InvalidArgumentError('Expected an option of sbatch, as in --sbatch=--exclusive or --sbatch=--mem=0.');
}

function parseTime(text: string): string {
  const forms = /^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2}|UNLIMITED|INFINITE)$/i;
  if (forms.test(text)) return text;
  throw new InvalidArgumentError('Expected minutes, 4:00:00 or 1-12:00:00.');
}

/** Minutes, minutes:seconds, hours:minutes:seconds, or behind days- hours, hours:minutes, hours:minutes:seconds. */
function secondsOf(limit: string): number {
  const [days, clock] = /^(?:(\d+)-)?(.*)$/.exec(limit)?.slice(1) ?? [];
  const numbers = (clock ?? '').split(':').map(Number);
  if (numbers.some(Number.isNaN)) return Infinity;
  const [a = 0, b = 0, c = 0] = numbers;
  if (days !== undefined) return Number(days) * 86_400 + a * 3600 + b * 60 + c;
  return numbers.length === 3 ? a * 3600 + b * 60 + c : a * 60 + b;
}

/** What Slurm takes as the time of a signal. */
function parseGrace(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= 65_535) return value;
  throw new InvalidArgumentError('Expected seconds from 1 to 65535.');
}

function parseRuntime(text: string): string {
  if (text === 'pyxis' || text === 'apptainer') return text;
  throw new InvalidArgumentError('Expected pyxis or apptainer.');
}

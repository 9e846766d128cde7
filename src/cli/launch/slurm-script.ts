import { shellWord } from '../../base/shell-word.js';
import { EXIT } from '../../base/errors.js';

/** How a task calls mbridge. */
export type SlurmProgram =
  | { readonly kind: 'installed'; readonly command: readonly string[] }
  | { readonly kind: 'pyxis' | 'apptainer'; readonly image: string; readonly mounts: readonly string[] }
  | { readonly kind: 'bundle'; readonly archive: string };

/** What is asked of Slurm, and what it starts. */
export interface SlurmJob {
  readonly name: string;
  readonly nodes: number;
  readonly tasksPerNode: number;
  readonly gpusPerNode: number | undefined;
  readonly cpusPerTask: number | undefined;
  /** Further options of sbatch, `--time=1:00:00`: each a line. */
  readonly options: readonly string[];
  /** Seconds between SIGUSR1 and the time limit. */
  readonly graceS: number;
  readonly requeue: boolean;
  readonly maxRestarts: number;
  readonly program: SlurmProgram;
  /** What follows `mbridge`. */
  readonly words: readonly string[];
  /** Folder of the run; null for one of the job's own in runs/. */
  readonly logDir: string | null;
  /** `checkpoint.save`; undefined for the run's folder, null for nothing. */
  readonly save: string | null | undefined;
  /** Whether the words say where to load from. */
  readonly loads: boolean;
}

/** Exit codes after which a task that failed may do better: it crashed, its collective hung, or a signal of a crash ended it. */
const RETRIED = [EXIT.worker, EXIT.hang, ...[6, 7, 9, 11].map((signal) => 128 + signal)];
/** What a run that SIGUSR1 has stopped ends with. */
const WARNED = 138;

/** The batch script of a run: bash, with its options of sbatch in front. Whatever was given is quoted. */
export function slurmScript(job: SlurmJob): string {
  const { nodes, program } = job;
  const perNode = `srun --nodes=${nodes} --ntasks=${nodes} --ntasks-per-node=1`;
  return [
    '#!/bin/bash',
    ...sbatchOptions(job).map((option) => `#SBATCH ${option}`),
    '',
    '# Written by mbridge launch slurm.',
    'set -uo pipefail',
    '',
    `run=${job.logDir === null ? `runs/"$SLURM_JOB_ID"-${shellWord(job.name)}` : shellWord(job.logDir)}`,
    ...(job.save === null ? [] : [`save=${job.save === undefined ? '$run/checkpoints' : shellWord(job.save)}`]),
    '',
    "# The ranks' secret goes from here to them in their environment: no command line and no file has it.",
    'MBRIDGE_TOKEN=$(openssl rand -hex 16) || exit 4',
    'export MBRIDGE_TOKEN',
    ...(program.kind === 'bundle' ? unpack(program.archive, perNode) : []),
    '',
    'train() {',
    ...joined(['srun', ...srunOptions(job), ...command(job)]),
    '}',
    '',
    ...restartLoop(job),
    '',
  ].join('\n');
}

function sbatchOptions(job: SlurmJob): string[] {
  return [
    `--job-name=${job.name}`,
    `--nodes=${job.nodes}`,
    `--ntasks-per-node=${job.tasksPerNode}`,
    ...(job.gpusPerNode === undefined ? [] : [`--gpus-per-node=${job.gpusPerNode}`]),
    ...(job.cpusPerTask === undefined ? [] : [`--cpus-per-task=${job.cpusPerTask}`]),
    ...job.options,
    `--signal=USR1@${job.graceS}`,
    ...(job.requeue ? ['--requeue'] : ['--no-requeue']),
    '--open-mode=append',
  ];
}

/** Every task sees all GPUs of its node, and takes the one of its local rank: GPUs that do not see each other are slow. */
function srunOptions({ nodes, tasksPerNode, gpusPerNode, cpusPerTask, program }: SlurmJob): string[] {
  const options = [
    `--nodes=${nodes}`,
    `--ntasks=${nodes * tasksPerNode}`,
    `--ntasks-per-node=${tasksPerNode}`,
    ...(gpusPerNode === undefined ? [] : [`--gpus-per-node=${gpusPerNode}`]),
    // What sbatch was told of it, srun does not take over.
    ...(cpusPerTask === undefined ? [] : [`--cpus-per-task=${cpusPerTask}`]),
    // A rank that is stuck where no time limit of its own holds would keep the nodes; one that is done early waits.
    '--kill-on-bad-exit=1',
    '--wait=0',
  ];
  if (program.kind !== 'pyxis') return options;
  const mounts = program.mounts.map((mount) => `,${shellWord(mount)}`).join('');
  return [
    ...options,
    `--container-image=${shellWord(program.image)}`,
    `--container-mounts="$PWD:$PWD"${mounts}`,
    '--container-workdir="$PWD"',
  ];
}

function command({ program, words, gpusPerNode, logDir, save, loads }: SlurmJob): string[] {
  const call = (): string[] => {
    switch (program.kind) {
      case 'installed':
        return program.command.map(shellWord);
      case 'pyxis':
        return ['mbridge'];
      case 'bundle':
        return ['"$bundle"/mbridge'];
      case 'apptainer': {
        const binds = program.mounts.map((mount) => `--bind ${shellWord(mount)}`);
        const gpus = gpusPerNode === undefined ? [] : ['--nv'];
        return ['apptainer exec', ...gpus, '--bind "$PWD" --pwd "$PWD"', ...binds, shellWord(program.image), 'mbridge'];
      }
    }
  };
  return [
    ...call(),
    ...words.map(shellWord),
    ...(logDir === null ? ['--log-dir "$run"'] : []),
    ...(save === undefined ? ['checkpoint.save="$save"'] : []),
    ...(save === null || loads ? [] : ['checkpoint.load="$save"']),
  ];
}

/** The warning before the time limit goes to these steps as well. */
function unpack(archive: string, perNode: string): string[] {
  const each = (commands: string): string => `${perNode} bash -c 'trap "" USR1; ${commands}'`;
  const extract = each('mkdir -p -m 700 "$1" && tar -xJf "$2" -C "$1" --strip-components=1');
  return [
    '',
    '# Each node unpacks the bundle once, on its own disk.',
    'bundle=${TMPDIR:-/tmp}/mbridge-$SLURM_JOB_ID',
    `clean() { ${each('rm -rf -- "$1"')} clean "$bundle"; }`,
    'trap clean EXIT',
    `${extract} unpack "$bundle" ${shellWord(archive)} || exit 4`,
  ];
}

function restartLoop({ maxRestarts, requeue, save }: SlurmJob): string[] {
  const saved = save === null ? 'true' : 'cat "$save/latest" 2>/dev/null';
  return [
    '# The last checkpoint.',
    `saved() { ${saved}; }`,
    '# Exit codes that reports name.',
    `named() { sed -n 's/^  "exit_code": \\([1-9][0-9]*\\),*$/\\1/p' "$@" 2>/dev/null; }`,
    '',
    'pause=1',
    'for ((restarts = 0; ; restarts++)); do',
    '  before=$(saved)',
    '  rm -f -- "$run/result.json" "$run"/rank-*/error.json',
    '  train && exit 0',
    '  code=$?',
    '  # What rank 0 says of the cause, else the ranks of themselves, counts more than how tasks ended that were stopped.',
    '  cause=$(named "$run/result.json")',
    '  [ -n "$cause" ] || cause=$(named "$run"/rank-*/error.json | sort -n | tail -n 1)',
    '  code=${cause:-$code}',
    ...(requeue ? requeueAfterWarning() : []),
    '  case $code in',
    `    ${RETRIED.join(' | ')}) ;;`,
    '    *) exit "$code" ;;',
    '  esac',
    `  ((restarts < ${maxRestarts})) || exit "$code"`,
    '  [ "$(saved)" = "$before" ] || pause=1',
    `  echo "mbridge: exit code $code; restart $((restarts + 1)) of ${maxRestarts} in $pause s" >&2`,
    '  sleep "$pause"',
    '  ((pause = pause < 32 ? pause * 2 : 60))',
    'done',
  ];
}

/** A job that gets nothing done before its limit would come back for ever. */
function requeueAfterWarning(): string[] {
  return [
    `  if [ "$code" = ${WARNED} ]; then`,
    '    if [ "$(saved)" = "$before" ]; then',
    '      echo "mbridge: the time limit came before a checkpoint: not queued again" >&2',
    '    else',
    '      echo "mbridge: the job is queued again, to go on after $(saved)" >&2',
    '      scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until Slurm ends this script',
    '    fi',
    '    exit "$code"',
    '  fi',
  ];
}

/** A command over as many lines as it has words, but for what belongs together. */
function joined(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < 100) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines.map((line, i) => `${i === 0 ? '  ' : '    '}${line}${i < lines.length - 1 ? ' \\' : ''}`);
}

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkCommand, type Machines } from '../../src/cli/launch/cluster-run.js';
import { slurmScript, type SlurmJob } from '../../src/cli/launch/slurm-script.js';
import { pretrainArgs, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { mbridge } from './mbridge.js';
import { readOutputs } from '../helpers/outputs.js';

const JOB: SlurmJob = {
  name: 'qwen3-4b',
  nodes: 2,
  tasksPerNode: 8,
  gpusPerNode: 8,
  cpusPerTask: undefined,
  options: ['--time=4:00:00', '--output=slurm-%j.out'],
  graceS: 600,
  requeue: false,
  maxRestarts: 3,
  program: { kind: 'installed', command: ['/opt/mbridge/bin/mbridge.js'] },
  words: ['pretrain', 'qwen3-4b', '--tp-size', '8'],
  logDir: null,
  save: undefined,
  loads: false,
};

/** A folder with programs, each a bash script, that come first in PATH. */
function programs(scripts: Record<string, string>): { folder: string; env: Record<string, string> } {
  const folder = temporaryFolder();
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(bin, name), `#!/bin/bash\n${text}\n`, { mode: 0o755 });
  }
  return { folder, env: { ...process.env, PATH: `${bin}:${process.env['PATH']}`, SLURM_JOB_ID: '7', TMPDIR: folder } };
}

describe('the script', () => {
  test('has the options of sbatch, a secret, srun, and starts again', () => {
    const script = slurmScript({ ...JOB, requeue: true, cpusPerTask: 12 });
    expect(script.split('\n').filter((line) => line.startsWith('#SBATCH'))).toEqual([
      '#SBATCH --job-name=qwen3-4b',
      '#SBATCH --nodes=2',
      '#SBATCH --ntasks-per-node=8',
      '#SBATCH --gpus-per-node=8',
      '#SBATCH --cpus-per-task=12',
      '#SBATCH --time=4:00:00',
      '#SBATCH --output=slurm-%j.out',
      '#SBATCH --signal=USR1@600',
      '#SBATCH --requeue',
      '#SBATCH --open-mode=append',
    ]);
    expect(script.startsWith('#!/bin/bash\n#SBATCH')).toBe(true);
    expect(script.endsWith('done\n')).toBe(true);
  });

  /** What srun is given of a job, and the secret in its environment. */
  function arguments_(change: Partial<SlurmJob>): { calls: string[][]; tokens: string[] } {
    const { folder, env } = programs({ srun: 'printf "%s\\0" "$@" "token=$MBRIDGE_TOKEN" $\'\\n\' >> calls' });
    const file = join(folder, 'job.sh');
    writeFileSync(file, slurmScript({ ...JOB, ...change }));
    const { status, stderr } = spawnSync('bash', [file], { cwd: folder, env, encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    const lines = readFileSync(join(folder, 'calls'), 'utf8').split('\0\n\0').slice(0, -1);
    const calls = lines.map((line) => line.split('\0').map((word) => word.replaceAll(folder, '.')));
    return { calls: calls.map((call) => call.slice(0, -1)), tokens: calls.map((call) => call.at(-1) ?? '') };
  }

  const OPTIONS = ['--nodes=2', '--ntasks=16', '--ntasks-per-node=8', '--gpus-per-node=8'];
  const ENDS = ['--kill-on-bad-exit=1', '--wait=0'];
  const SAVES = ['checkpoint.save=runs/7-qwen3-4b/checkpoints', 'checkpoint.load=runs/7-qwen3-4b/checkpoints'];
  const RUN = ['--log-dir', 'runs/7-qwen3-4b', ...SAVES];
  const HOSTILE = ['pretrain', 'a b.yaml', "x.y=it's", 'x.z=$(touch pwned)', 'x.w=[1, 2]', 'x.v="$HOME"', 'x.u=`id`\\'];
  test.each<[string, Partial<SlurmJob>, string[]]>([
    ['installed', {}, [...OPTIONS, ...ENDS, '/opt/mbridge/bin/mbridge.js', ...JOB.words, ...RUN]],
    [
      'words that a shell would read',
      { words: HOSTILE, logDir: 'my $runs', save: "it's", loads: true },
      [...OPTIONS, ...ENDS, '/opt/mbridge/bin/mbridge.js', ...HOSTILE],
    ],
    [
      'on the CPU, saving nothing',
      { nodes: 1, tasksPerNode: 2, gpusPerNode: undefined, cpusPerTask: 4, save: null, logDir: 'x' },
      ['--nodes=1', '--ntasks=2', '--ntasks-per-node=2', '--cpus-per-task=4', ...ENDS].concat(
        '/opt/mbridge/bin/mbridge.js',
        JOB.words,
      ),
    ],
    [
      'pyxis',
      { program: { kind: 'pyxis', image: 'nvcr.io#a/b c:1', mounts: ['/data:/my data'] } },
      [...OPTIONS, ...ENDS, '--container-image=nvcr.io#a/b c:1', '--container-mounts=.:.,/data:/my data'].concat(
        '--container-workdir=.',
        'mbridge',
        JOB.words,
        RUN,
      ),
    ],
    [
      'apptainer',
      { program: { kind: 'apptainer', image: 'm b.sif', mounts: ['/data'] } },
      [...OPTIONS, ...ENDS, 'apptainer', 'exec', '--nv', '--bind', '.', '--pwd', '.', '--bind', '/data'].concat(
        'm b.sif',
        'mbridge',
        JOB.words,
        RUN,
      ),
    ],
    [
      'a bundle',
      { program: { kind: 'bundle', archive: '/x y.tar.xz' } },
      [...OPTIONS, ...ENDS, './mbridge-7/mbridge', ...JOB.words, ...RUN],
    ],
  ])('hands srun its words as they are: %s', (_, change, expected) => {
    const { calls, tokens } = arguments_(change);
    const each = ['--nodes=2', '--ntasks=2', '--ntasks-per-node=1'];
    const unpacked = calls.length > 1;
    expect(unpacked).toBe(change.program?.kind === 'bundle');
    if (unpacked) {
      expect(calls[0]?.slice(0, 3)).toEqual(each);
      expect(calls[0]?.slice(-3)).toEqual(['unpack', './mbridge-7', '/x y.tar.xz']);
      expect(calls[2]?.slice(0, 3)).toEqual(each);
      expect(calls[2]?.slice(-2)).toEqual(['clean', './mbridge-7']);
    }
    expect(calls[unpacked ? 1 : 0]).toEqual(expected);
    expect(tokens[0]).toMatch(/^token=[0-9a-f]{32}$/);
    expect(new Set(tokens).size).toBe(1);
    expect(JSON.stringify(calls)).not.toContain((tokens[0] ?? '').slice('token='.length));
  });

  // Each start of the tasks: its exit code, and what it leaves: a checkpoint, exit codes of result.json or error.json.
  interface Start {
    code: number;
    saves?: string;
    result?: number;
    error?: number;
  }
  test.each<[string, Start[], Partial<SlurmJob>, { code: number; sleeps: string; requeued?: boolean }]>([
    ['done at once', [{ code: 0 }], {}, { code: 0, sleeps: '' }],
    ['a crash, then done', [{ code: 5 }, { code: 0 }], {}, { code: 0, sleeps: '1 ' }],
    ['a hang', [{ code: 6 }, { code: 0 }], {}, { code: 0, sleeps: '1 ' }],
    ['a rank that a signal ended', [{ code: 139 }, { code: 0 }], {}, { code: 0, sleeps: '1 ' }],
    ['crashes without an end', Array<Start>(9).fill({ code: 5 }), {}, { code: 5, sleeps: '1 2 4 ' }],
    [
      'crashes after checkpoints',
      [{ code: 5 }, { code: 5 }, { code: 5, saves: 'step-1' }, { code: 5, saves: 'step-2' }],
      {},
      { code: 5, sleeps: '1 2 1 ' },
    ],
    ['no restarts', [{ code: 5 }], { maxRestarts: 0 }, { code: 5, sleeps: '' }],
    ['a wrong configuration', [{ code: 3 }], {}, { code: 3, sleeps: '' }],
    ['a full disk, by rank 0', [{ code: 137, result: 7 }], {}, { code: 7, sleeps: '' }],
    ['a full disk, by the rank that had it', [{ code: 137, error: 7 }], {}, { code: 7, sleeps: '' }],
    ['diverged, others lost it', [{ code: 8, result: 8, error: 5 }], {}, { code: 8, sleeps: '' }],
    ['a crash, others were ended', [{ code: 137, result: 5 }, { code: 0 }], {}, { code: 0, sleeps: '1 ' }],
    ['then what an earlier report does not say', [{ code: 5, result: 5 }, { code: 3 }], {}, { code: 3, sleeps: '1 ' }],
    ['cancelled', [{ code: 143 }], { requeue: true }, { code: 143, sleeps: '' }],
    ['warned, without --requeue', [{ code: 138, saves: 'step-1' }], {}, { code: 138, sleeps: '' }],
    ['warned', [{ code: 138, saves: 'step-1' }], { requeue: true }, { code: 138, sleeps: '60 ', requeued: true }],
    ['warned before anything was done', [{ code: 138 }], { requeue: true }, { code: 138, sleeps: '' }],
  ])('starts again what may do better: %s', (_, starts, change, expected) => {
    const acts = starts.map(({ code, saves, result, error }, i) => {
      const write = (path: string, value: number): string =>
        `mkdir -p "$(dirname "${path}")"; printf '{\\n  "exit_code": ${value},\\n}' > "${path}";`;
      return [
        `${i}) ${saves === undefined ? '' : `mkdir -p $run/checkpoints; echo ${saves} > $run/checkpoints/latest;`}`,
        `${result === undefined ? '' : write('$run/result.json', result)}`,
        `${error === undefined ? '' : write('$run/rank-3/error.json', error)} exit ${code};;`,
      ].join('');
    });
    const { folder, env } = programs({
      srun: `run=runs/7-qwen3-4b; n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; case $n in ${acts.join('\n')} *) exit 99;; esac`,
      sleep: 'printf "%s " "$1" >> sleeps',
      scontrol: '[ "$*" = "requeue 7" ] && touch requeued',
    });
    const file = join(folder, 'job.sh');
    writeFileSync(file, slurmScript({ ...JOB, ...change }));
    execFileSync('bash', ['-n', file]);
    const { status, stderr } = spawnSync('bash', [file], { cwd: folder, env, encoding: 'utf8' });
    expect(status, stderr).toBe(expected.code);
    const slept = join(folder, 'sleeps');
    expect(existsSync(slept) ? readFileSync(slept, 'utf8') : '').toBe(expected.sleeps);
    expect(existsSync(join(folder, 'requeued'))).toBe(expected.requeued ?? false);
  });
});

describe('the command after -- is checked', () => {
  const GPUS: Machines = { nodes: 2, gpus: 8, cpuRanks: undefined, cpuFlag: '--ntasks-per-node' };
  const CPU: Machines = { ...GPUS, nodes: 1, gpus: undefined, cpuRanks: 2 };
  test.each<[string, string, Machines, number, RegExp]>([
    ['another command', 'finetune x', GPUS, 2, /cannot write a job for mbridge finetune/],
    ['an unknown key', 'pretrain qwen3-tiny model.foo=1', GPUS, 3, /model\.foo: unknown key/],
    ['an unknown recipe', 'pretrain qwen9', GPUS, 3, /qwen9/],
    ['a layout that does not fit', 'pretrain qwen3-4b --tp-size 3', GPUS, 3, /does not divide the 16 processes/],
    ['--nproc', 'pretrain qwen3-4b --nproc 8', GPUS, 2, /--nproc after --/],
    ['--max-restarts', 'pretrain qwen3-4b --max-restarts 8', GPUS, 2, /--max-restarts after --/],
    ['GPUs for the CPU', 'pretrain qwen3-tiny --device cpu', GPUS, 2, /dist\.device is cpu, and the job asks for GPUs/],
    ['the CPU for GPUs', 'pretrain qwen3-tiny --device cuda', CPU, 2, /dist\.device is cuda, and .* no GPUs/],
    ['nothing asked for', 'pretrain qwen3-tiny', { ...CPU, cpuRanks: undefined }, 2, /neither --gpus-per-node nor/],
    ['both', 'pretrain qwen3-tiny', { ...GPUS, cpuRanks: 2 }, 2, /--gpus-per-node and --ntasks-per-node/],
    [
      'a start that would be gone back to',
      'pretrain qwen3-tiny checkpoint.load=old checkpoint.save=new',
      CPU,
      2,
      /checkpoint\.load=old, and a job that is started again would begin there each time/,
    ],
  ])('%s', async (_, words, machines, exitCode, message) => {
    const checked = checkCommand(words.split(' '), machines, true);
    await expect(checked).rejects.toMatchObject({ exitCode, message: expect.stringMatching(message) as string });
  });

  test('and what it leaves open is filled in', async () => {
    const words = ['pretrain', 'qwen3-tiny', 'train.train_iters=3000', 'train.global_batch_size=32'];
    expect(await checkCommand(words, GPUS, true)).toMatchObject({
      words: [...words, '--device', 'cuda'],
      name: 'qwen3-tiny',
      ranksPerNode: 8,
      logDir: null,
      saves: { folder: undefined, words: ['checkpoint.save_interval=300', 'checkpoint.keep_last=2'], loads: false },
    });
    const given = ['checkpoint.save=a', 'checkpoint.load=a', '--log-dir', 'b', 'dist.ranks_per_gpu=2'];
    expect(await checkCommand([...words, ...given], GPUS, true)).toMatchObject({
      ranksPerNode: 16,
      logDir: 'b',
      saves: { folder: 'a', words: [], loads: true },
    });
  });
});

test.each([
  [['--gpus-per-node', '8', '--sbatch=--comment=a b'], 2, /Expected letters, digits/],
  [['--gpus-per-node', '8', '--time', '4h'], 2, /Expected minutes/],
  [['--gpus-per-node', '8', '--time', '10'], 2, /--grace is 600 s, and --time 10 is 600 s/],
  [['--gpus-per-node', '8', '--bundle', 'nowhere.tar.xz'], 2, /there is no such file/],
  [['--gpus-per-node', '8', '--submit'], 4, /error MB_SBATCH: sbatch .*: not found/],
])('mbridge launch slurm %j is refused', async (options, exitCode, message) => {
  const args = ['launch', 'slurm', ...options, '--', 'pretrain', 'qwen3-tiny', '--json'];
  const outcome = await mbridge(args, { PATH: temporaryFolder() });
  expect(outcome).toMatchObject({ exitCode, stdout: '', stderr: expect.stringMatching(message) as string });
});

test('a job of two tasks is warned, saves, comes back and goes on to its end', { timeout: 120_000 }, async () => {
  // As Slurm: a process a task with its variables, SIGUSR1 to all of them once, a job that is requeued runs again.
  const { folder, env } = programs({
    sbatch: [
      'bash "$1" || code=$?',
      'if [ -e requeued ]; then rm requeued; bash "$1"; code=$?; fi',
      'echo "Submitted batch job 7"; exit ${code:-0}',
    ].join('\n'),
    scontrol: 'touch requeued; kill -TERM $PPID',
    srun: [
      'while [[ $1 == -* ]]; do shift; done',
      'export SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 SLURM_STEP_NODELIST=n1',
      'for r in 0 1; do SLURM_PROCID=$r SLURM_LOCALID=$r "$@" >> out.$r 2>> err.$r & pids[r]=$!; done',
      'if [ ! -e warned ]; then touch warned',
      '  until grep -q \'"step":2,\' out.0; do sleep 0.1; kill -0 ${pids[0]} || break; done; kill -USR1 ${pids[@]}; fi',
      'most=0; for p in ${pids[@]}; do wait $p; code=$?; ((code > most)) && most=$code; done; exit $most',
    ].join('\n'),
  });
  const [, ...run] = pretrainArgs({ folder, args: ['--tp-size', '2', 'train.train_iters=40'] });
  const words = run.filter((word, i) => word !== '--log-dir' && run[i - 1] !== '--log-dir');
  const options = ['--ntasks-per-node', '2', '--requeue', '--submit', '-o', 'job.sh'];
  const { PATH = '' } = env;
  const outcome = await mbridge(
    ['launch', 'slurm', ...options, '--', 'pretrain', ...words],
    { PATH: `${PATH}:${dirname(process.execPath)}`, SLURM_JOB_ID: '7' },
    folder,
  );
  const said = existsSync(join(folder, 'err.0')) ? readFileSync(join(folder, 'err.0'), 'utf8') : '';
  expect(outcome.exitCode, `${outcome.stderr}\n${said}`).toBe(0);
  expect(outcome.stdout).toBe('Submitted batch job 7');
  const out = readFileSync(join(folder, 'out.0'), 'utf8');
  expect(stepsOf(out).map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  const results = readOutputs(out).filter(({ type }) => type === 'result');
  expect(results).toMatchObject([
    { ok: false, signal: 'SIGUSR1', exit_code: 138 },
    { ok: true, steps: 40 },
  ]);
  expect(readdirSync(join(folder, 'runs'))).toEqual(['7-run']);
  expect(said).toMatch(/\ncontinue with: .* resume runs\/7-run --json \(each rank, started as before\)\n/);
});

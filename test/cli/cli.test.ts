import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, describe, expect, test } from 'vitest';
import type { OutputFacts } from '../../src/outputs/line.js';
import { readOutput } from '../helpers/outputs.js';
import { BIN, mbridge } from './mbridge.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-cli-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});
const badFile = join(folder, 'bad.yaml');
writeFileSync(badFile, 'model:\n  num_layer: 3\n');

describe('errors: one clear line, the right exit code, no stack', () => {
  test.each<[string, number, string]>([
    ['pretran', 2, "MB_USAGE: unknown command 'pretran' (did you mean pretrain?)"],
    ['recipes --jsn', 2, "MB_USAGE: unknown option '--jsn' (did you mean --json?)"],
    ['train', 2, "MB_USAGE: unknown command 'train' (did you mean pretrain?)"],
    [
      'pretrain qwen3-tiny --seq-length 64',
      2,
      "MB_USAGE: unknown option '--seq-length' (did you mean model.seq_length=VALUE?)",
    ],
    [
      'pretrain qwen3-tiny --dp 2',
      2,
      "MB_USAGE: unknown option '--dp': data parallelism is what the other sizes leave",
    ],
    [
      'plan qwen3-tiny --tensor-parallel-size 2',
      2,
      "MB_USAGE: unknown option '--tensor-parallel-size' (did you mean --tp-size?)",
    ],
    [
      'pretrain qwen3-tiny --nproc_per_node=8',
      2,
      "MB_USAGE: unknown option '--nproc_per_node=8' (did you mean --nproc?)",
    ],
    ['traine', 2, "MB_USAGE: unknown command 'traine' (did you mean pretrain?)"],
    ['', 2, 'MB_USAGE: no command given'],
    ['config keys optimzer', 3, 'MB_CONFIG_UNKNOWN_KEY: no section or key optimzer (did you mean optimizer?)'],
    ['runs compare a b', 7, 'MB_NO_RUN: a is no run of mbridge pretrain'],
    ['pretrain', 2, 'MB_USAGE: nothing to run: no recipe and no configuration file'],
    ['pretrain qwen3-tiny stray', 2, 'MB_USAGE: unexpected argument stray'],
    ['pretrain a.yaml --config b.yaml', 2, 'MB_USAGE: two configuration files: a.yaml and --config b.yaml'],
    ['pretrain qwen3-tiny --nproc 0', 2, "MB_USAGE: option '--nproc <n>' argument '0' is invalid."],
    ['grid', 2, "MB_USAGE: required option '--nproc <n>' not specified"],
    ['pretrain qwen3-tinny', 3, 'MB_CONFIG_UNKNOWN_RECIPE: unknown recipe qwen3-tinny (did you mean qwen3-tiny?)'],
    ['pretrain none.yaml', 3, 'MB_CONFIG_FILE: none.yaml: cannot read the configuration: ENOENT'],
    [
      `pretrain qwen3-tiny --config ${badFile}`,
      3,
      `MB_CONFIG_UNKNOWN_KEY: ${badFile}:2:3 model.num_layer: unknown key`,
    ],
    [
      'pretrain qwen3-tiny mdel.seq_length=3',
      3,
      'MB_CONFIG_UNKNOWN_KEY: mdel.seq_length=3 mdel: unknown key (did you mean model?)',
    ],
    ['pretrain qwen3-tiny --tp-size x', 3, 'MB_CONFIG_VALUE: --tp-size model.tensor_model_parallel_size: expected an'],
    ['pretrain qwen3-tiny --device tpu', 3, 'MB_CONFIG_VALUE: --device dist.device: expected one of auto, cuda, cpu'],
    [
      'pretrain qwen3-tiny --nproc 5 --pp-size 5',
      3,
      'MB_CONFIG_LAYOUT: --pp-size model.pipeline_model_parallel_size: 5',
    ],
    [
      'pretrain qwen3-tiny --nproc 3 --tp-size 2',
      3,
      'MB_CONFIG_LAYOUT: tp 2 x pp 1 = 2 does not divide the 3 processes',
    ],
    [
      'pretrain qwen3-tiny dist.use_gloo_process_groups=true',
      3,
      'MB_CONFIG_VALUE: dist.use_gloo_process_groups=true dist.use_gloo_process_groups:',
    ],
    [`show-config ${folder}`, 3, `MB_CONFIG_UNKNOWN_RECIPE: unknown recipe ${folder}`],
    [`pretrain qwen3-tiny --log-dir ${badFile}/run`, 7, "MB_RUN_FOLDER: cannot make the run's folder: ENOTDIR"],
    ['pretrain qwen3-tiny --log-dir /proc/none', 7, "MB_RUN_FOLDER: cannot make the run's folder: ENOENT"],
    ['bench gemm qwen3-tiny --device cpu model.hidden_size=1e8', 4, 'MB_MEMORY_PLAN: this rank needs'],
    ['bench comm --device cpu', 2, 'MB_USAGE: one process has no collectives to measure'],
    [
      `bench ops --device cpu --record ${folder}/none/ops`,
      7,
      `MB_BENCH_RECORD: cannot write --record ${folder}/none/ops`,
    ],
    ['grid --nproc 8 --tp-size 3', 3, 'MB_CONFIG_LAYOUT: tp 3 x cp 1 x pp 1 = 3 does not divide the 8 ranks'],
    ['grid --nproc 8 --rank-offset 1 --world-size 8', 3, 'MB_GRID_OVERSIZED: '],
  ])('mbridge %s', async (line, exitCode, message) => {
    const args = line.split(' ').filter((arg) => arg !== '');
    const plain = await mbridge(args);
    expect(plain.stderr.split('\n').find((text) => text.startsWith('error '))).toContain(`error ${message}`);
    expect(plain).toMatchObject({ exitCode, stdout: '' });
    expect(plain.stderr).not.toMatch(/^ +at /m);

    const json = await mbridge([...args, '--json']);
    const last = JSON.parse(json.stdout.split('\n').at(-1) ?? '') as { error: { code: string } };
    expect(last).toMatchObject({ type: 'result', ok: false, exit_code: exitCode });
    expect(message.startsWith(`${last.error.code}:`)).toBe(true);
    expect(json.exitCode).toBe(exitCode);
  });

  test('a device that is not there', async () => {
    const { exitCode, stderr } = await mbridge(['pretrain', 'qwen3-tiny', '--device', 'cuda'], {
      CUDA_VISIBLE_DEVICES: '',
    });
    expect(exitCode).toBe(4);
    expect(stderr).toContain('error MB_DEVICE: device cuda is asked for, but no NVIDIA GPU is visible here');
  });
});

describe('help', () => {
  test('names the commands and exit codes', async () => {
    const { exitCode, stdout } = await mbridge(['--help']);
    expect(exitCode).toBe(0);
    for (const text of ['pretrain', 'recipes', 'plan', 'grid', 'show-config', '128+n']) expect(stdout).toContain(text);
  });

  test('the version is that of package.json', async () => {
    const { stdout } = await mbridge(['--version']);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

test('recipes', async () => {
  const { stdout } = await mbridge(['recipes', '--json']);
  const { recipes } = JSON.parse(stdout) as { recipes: { name: string }[] };
  expect(recipes.map(({ name }) => name)).toEqual([
    ...['tiny', '0.6b', '1.7b', '4b', '8b', '14b', '32b'].map((size) => `qwen3-${size}`),
    ...['0.5b', '1.5b', '3b', '7b', '14b', '32b', '72b'].map((size) => `qwen2.5-${size}`),
    ...['3-8b', '3-70b', '3.1-8b', '3.1-70b', '3.1-405b', '3.2-1b', '3.2-3b', '3.3-70b'].map((size) => `llama${size}`),
  ]);
  expect((await mbridge(['recipes'])).stdout).toMatch(/^qwen3-4b +Qwen3 4B: 36 layers/m);
});

describe('grid', () => {
  test('the layout of the examples', async () => {
    const { stdout } = await mbridge('grid --nproc 8 --tp-size 2 --pp-size 2 --json'.split(' '));
    const { shape, groups } = readOutput(stdout) as unknown as { shape: object; groups: Record<string, number[][]> };
    expect(shape).toEqual({ tp: 2, cp: 1, dp: 2, pp: 2 });
    expect(groups).toMatchObject({
      tp: [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
      ],
      dp: [
        [0, 2],
        [1, 3],
        [4, 6],
        [5, 7],
      ],
      pp: [
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
      ],
      mp: [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
      ],
      embd: [
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
      ],
      pos_embd: [[0], [1], [2], [3]],
    });
    expect(Object.keys(groups)).toHaveLength(19);
  });

  test('a grid over part of the world', async () => {
    const line = 'grid --nproc 4 --tp-size 2 --rank-offset 4 --world-size 16 --json';
    const { groups } = JSON.parse((await mbridge(line.split(' '))).stdout) as { groups: Record<string, number[][]> };
    expect([groups['tp'], groups['dp']]).toEqual([
      [
        [4, 5],
        [6, 7],
      ],
      [
        [4, 6],
        [5, 7],
      ],
    ]);
  });
});

describe('plan', () => {
  const line = 'plan qwen3-4b --nproc 8 --tp-size 2 --pp-size 2 --device cuda';

  test('--json: ranks, memory, work, total parameters', async () => {
    const { stdout } = await mbridge([...line.split(' '), '--json']);
    const plan = readOutput<OutputFacts<'plan'>>(stdout);
    expect(plan.parameters).toBe(4_022_468_096);
    expect(plan.layout).toMatchObject({ tp: 2, dp: 2, pp: 2, micro_batches: 16 });
    expect(plan.ranks.map(({ layers }) => layers[0])).toEqual([
      ...Array.from({ length: 4 }, () => [0, 19]),
      ...Array.from({ length: 4 }, () => [20, 35]),
    ]);
    for (const { bytes, total_bytes: total } of plan.ranks) {
      expect(Object.values(bytes).reduce((a, b) => a + b, 0)).toBe(total);
    }
    const work = plan.ranks.reduce((sum, { flops_per_step: flops }) => sum + flops, 0);
    expect(Math.abs(work / plan.flops_per_step - 1)).toBeLessThan(1e-9);
  });

  test('of a job: its models, and what each rank holds in each phase, on 80 columns', async () => {
    const job = join(import.meta.dirname, '../../examples/jobs/grpo-qwen3-4b.yaml');
    const { stdout } = await mbridge(['plan', job]);
    expect(stdout).toContain('job: 4 ranks on cuda, bf16_mixed\n');
    expect(stdout).toMatch(/^learn +0-1 +[\d.]+ {2}policy value\n +2-3 +[\d.]+$/m);
    expect(stdout).toMatch(/^fits: [\d.]+ GiB of 79 GiB of a GPU are left$/m);
    expect(stdout.split('\n').filter(({ length }) => length > 80)).toEqual([]);
    const plan = readOutput<OutputFacts<'job_plan'>>((await mbridge(['plan', job, '--nproc', '8', '--json'])).stdout);
    expect(plan.models.map(({ layout: { dp } }) => dp)).toEqual([2, 8, 1, 1]);
    expect(plan.ranks).toHaveLength(8);
  });

  test('a job takes none of the flags of a run, and says in which model a recipe is unknown', async () => {
    const job = join(import.meta.dirname, '../../examples/jobs/grpo-qwen3-4b.yaml');
    const flag = await mbridge(['plan', job, '--tp-size', '2']);
    expect(flag).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('--tp-size is for the plan of one run') as string,
    });
    const file = join(folder, 'job.yaml');
    writeFileSync(file, 'models: { policy: { run: qwen3-tinny } }');
    const unknown = await mbridge(['plan', file]);
    expect(unknown.exitCode).toBe(3);
    expect(unknown.stderr).toContain('models.policy: unknown recipe qwen3-tinny (did you mean qwen3-tiny?)');
  });

  test('as a table, of ranks with the same work or of each', async () => {
    const grouped = await mbridge(line.split(' '));
    expect(grouped.stdout).toMatch(
      /^ranks {2}layers +weights +grads +optim +activ +other +total\n0-3 +E 0-19 .*\n4-7 +20-35 H /m,
    );
    const fp8 = await mbridge([...line.split(' '), 'mixed_precision=fp8_mixed']);
    expect(fp8.stdout).toMatch(/ on cuda, fp8_mixed\n[^]*^ranks {2}layers +weights +fp8 +grads +optim +activ /m);
    const { stdout } = await mbridge([...line.split(' '), '--per-rank']);
    expect(stdout).toContain('layout: tp 2, cp 1, dp 2, pp 2 on cuda, bf16_mixed\nparameters: 4,022,468,096\n');
    expect(stdout).toMatch(/^ {3}0 {3}0 {3}0 {3}0 {3}0 {2}E 0-19 /m);
    expect(stdout).toMatch(/^ {3}7 {3}1 {3}0 {3}1 {3}1 {2}20-35 H +1,001,970,176 /m);
  });

  test.each([
    [['--device', 'cuda'], '2 ranks share each of 2 GPUs; the fullest holds'],
    [['--device', 'cpu'], null],
  ])('ranks that share a GPU: %j', async (device, said) => {
    const args = 'plan qwen3-tiny --nproc 3 --pp-size 3 train.global_batch_size=6 dist.ranks_per_gpu=2'.split(' ');
    const { stdout } = await mbridge([...args, ...device]);
    if (said === null) return expect(stdout).not.toContain('ranks_per_gpu');
    const plan = readOutput<OutputFacts<'plan'>>((await mbridge([...args, ...device, '--json'])).stdout);
    const [first, second] = plan.ranks.map(({ total_bytes: total, runtime_bytes: runtime }) => total + runtime);
    const mib = Number(((first! + second!) / 2 ** 20).toFixed(2));
    expect(stdout).toContain(`dist.ranks_per_gpu: ${said} ${mib} MiB\n`);
  });

  test('a small model is printed in small units', async () => {
    const { stdout } = await mbridge('plan qwen3-tiny --nproc 2 --tp-size 2 --device cpu'.split(' '));
    expect(stdout).toMatch(/tokens, [\d.]+ GFLOP, [^]*^memory: MiB a rank/m);
    expect(stdout).not.toContain('GiB');
  });

  test('a model that this machine cannot hold is refused before anything starts', async () => {
    const { exitCode, stdout, stderr } = await mbridge('pretrain qwen3-32b --nproc 8 --device cpu --json'.split(' '));
    expect([exitCode, stderr]).toEqual([
      4,
      expect.stringMatching(/error MB_MEMORY_PLAN: 8 processes need [\d.]+ GiB \(rank 0/),
    ]);
    const { error } = JSON.parse(stdout) as { error: { details: { needed: number; available: number } } };
    expect(error.details.needed).toBeGreaterThan(error.details.available);
  });
});

describe('show-config', () => {
  const args = ['show-config', 'qwen3-tiny', '--tp-size', '2', 'train.train_iters=7'];

  test('its YAML is a configuration that gives itself', async () => {
    const first = await mbridge(args);
    const file = join(folder, 'resolved.yaml');
    writeFileSync(file, first.stdout);
    const second = await mbridge(['show-config', file]);
    expect(second.stdout).toBe(first.stdout);
    expect(first.stdout).toContain('train_iters: 7\n');
  });

  test('--explain says where values come from', async () => {
    const { stdout } = await mbridge([...args, '--explain']);
    for (const line of [
      '  tensor_model_parallel_size: 2 # --tp-size',
      '  sequence_parallel: true # from model.tensor_model_parallel_size > 1, where it divides the tokens of a micro-batch',
      '  train_iters: 7 # train.train_iters=7',
      '  hidden_size: 256 # recipe qwen3-tiny',
      '  adam_beta1: 0.9 # default',
      'mixed_precision: auto # default',
    ]) {
      expect(stdout.split('\n')).toContain(line);
    }
  });

  test('--json', async () => {
    const { stdout } = await mbridge([...args, '--json']);
    expect(readOutput(stdout)).toMatchObject({
      config: { train: { train_iters: 7 }, scheduler: { lr_decay_iters: 7 } },
    });
  });
});

// The run's first line fails, and it goes on to its end.
const SMALL_RUN = 'pretrain qwen3-tiny --device cpu model.seq_length=32 train.global_batch_size=1 checkpoint.save=null';
test.each<[string, 'stdout' | 'stderr', number, string]>([
  ['recipes', 'stdout', 7, 'error MB_STDOUT: stdout cannot be written: ENOSPC'],
  ['show-config nothing', 'stderr', 3, ''],
  [
    `${SMALL_RUN} train.train_iters=20`,
    'stdout',
    7,
    'warning: stdout cannot be written, and gets no more results: ENOSPC',
  ],
])('mbridge %s where the disk of %s is full ends with %i', async (line, full, exitCode, message) => {
  const device = openSync('/dev/full', 'w');
  const { stderr, ...ended } = await execa(process.execPath, [BIN, ...line.split(' ')], {
    reject: false,
    [full]: device,
    cwd: folder,
  });
  closeSync(device);
  expect(ended.exitCode).toBe(exitCode);
  expect(String(stderr ?? '')).toMatch(new RegExp(`^${message}`, 'm'));
  expect(String(stderr ?? '')).not.toMatch(/^ +at /m);
});

test('a closed stdout ends a command quietly', async () => {
  const child = spawn(process.execPath, [BIN, 'show-config', 'qwen3-tiny'], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  expect([code, stderr]).toEqual([0, '']);
});

import { existsSync, readdirSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { pretrainArgs, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { Running, type Outcome } from '../job/launch/processes.js';
import { BIN } from './mbridge.js';
import { readOutputs } from '../helpers/outputs.js';

vi.setConfig({ testTimeout: 120_000 });

const EXAMPLES = join(import.meta.dirname, '../../dist/examples/decentralized-pg');

/** A port for MASTER_PORT; the store listens on the next one. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port - 1;
}

/** What each starter sets for one of two processes on one node. */
const STARTERS: Record<string, (rank: number) => Record<string, string>> = {
  torchrun: (r) => ({
    RANK: `${r}`,
    LOCAL_RANK: `${r}`,
    WORLD_SIZE: '2',
    LOCAL_WORLD_SIZE: '2',
    TORCHELASTIC_RUN_ID: 'none',
  }),
  mpiexec: (r) => ({ PMI_RANK: `${r}`, PMI_SIZE: '2', MPI_LOCALRANKID: `${r}`, MPI_LOCALNRANKS: '2' }),
  'srun, WORLD_SIZE exported': (r) => ({
    WORLD_SIZE: '2',
    SLURM_JOB_ID: '5',
    SLURM_PROCID: `${r}`,
    SLURM_NTASKS: '2',
    SLURM_LOCALID: `${r}`,
    SLURM_NODEID: '0',
    SLURM_STEP_TASKS_PER_NODE: '2',
    SLURM_STEP_NODELIST: 'n[1-2]x[3,4]',
  }),
  'a PyTorchJob of two pods': (r) => ({
    RANK: `${r}`,
    WORLD_SIZE: '2',
    PET_NNODES: '2',
    PET_NODE_RANK: `${r}`,
    MASTER_ADDR: '127.0.0.1',
    MBRIDGE_TOKEN: 'f00d'.repeat(8),
  }),
};

async function runTwo(
  starter: string,
  command: readonly string[],
  env: Record<string, string> = {},
): Promise<Outcome[]> {
  const port = String(await freePort());
  const runs = [0, 1].map(
    (rank) => new Running([process.execPath, ...command], { MASTER_PORT: port, ...STARTERS[starter]?.(rank), ...env }),
  );
  return Promise.all(runs.map((run) => run.ended));
}

test.each(Object.keys(STARTERS))('two processes of %s are the ranks of one run', async (starter) => {
  const folder = temporaryFolder();
  const saved = join(folder, 'saved');
  const args = pretrainArgs({ folder, args: ['--tp-size', '2', 'train.train_iters=3', `checkpoint.save=${saved}`] });
  const [first, second] = await runTwo(starter, [BIN, ...args]);
  expect(first?.code, first?.stderr).toBe(0);
  expect(second).toMatchObject({ code: 0, stdout: '' });
  // What the launcher says, rank 0 does.
  const said = first?.stderr ?? '';
  expect(said).toMatch(/^run\n {2}model .*\n {2}layout {4}tp 2, dp 1, pp 1: 2 processes on the CPU/);
  expect(said).toMatch(/\n {2}stop {6}SIGTERM, SIGUSR1 or Ctrl-C to any rank saves after this update\n/);
  expect(said).toMatch(/\ntrained 3 updates: .*\ntime: .*\nmemory: .*\nsaved: update 3 in .*\ntrain on with: /);
  expect(said).toMatch(/ resume .* train\.train_iters=6 \(each rank, started as before\)\nfinished in .*\n$/);
  expect(stepsOf(first?.stdout ?? '')).toHaveLength(3);
  expect(readOutputs(first?.stdout ?? '').at(-1)).toMatchObject({ type: 'result', ok: true, exit_code: 0, steps: 3 });
  expect(readdirSync(join(folder, 'run')).filter((name) => name.startsWith('rank-'))).toEqual(['rank-0', 'rank-1']);
  expect(readdirSync(saved).filter((name) => name.startsWith('step-'))).toHaveLength(1);
});

test.each(Object.keys(STARTERS))('--nproc in a process of %s is refused before anything is made', async (starter) => {
  const folder = temporaryFolder();
  for (const { code, stderr } of await runTwo(starter, [BIN, ...pretrainArgs({ folder, args: ['--nproc', '2'] })])) {
    expect(stderr).toMatch(/^error MB_SEVERAL_LAUNCHERS: this is process [01] of 2 that .*\n {2}leave --nproc out/);
    expect(code).toBe(2);
  }
  expect(existsSync(join(folder, 'run'))).toBe(false);
});

test.each([
  ['torchrun', /torchrun --max-restarts N does that; give checkpoint\.load and checkpoint\.save one folder/],
  ['srun, WORLD_SIZE exported', /mbridge launch slurm --max-restarts N writes a job that does that/],
  ['mpiexec', /a loop around it does that, after exit codes 5 and 6/],
])('--max-restarts in a rank of %s names who does that', async (starter, hint) => {
  const args = pretrainArgs({ folder: temporaryFolder(), args: ['--tp-size', '2', '--max-restarts', '2'] });
  const { code, stderr } = await new Running([process.execPath, BIN, ...args], STARTERS[starter]?.(0)).ended;
  expect(stderr).toMatch(hint);
  expect(code).toBe(2);
});

test('a bench in a process of several is refused', async () => {
  const [first] = await runTwo('mpiexec', [BIN, 'bench', 'comm', '--nproc', '2', '--device', 'cpu']);
  expect(first).toMatchObject({ code: 2, stderr: expect.stringContaining('MB_SEVERAL_LAUNCHERS') as string });
});

const SMALL = '--hidden-size 64 --vocab-size 512 --seq-length 64 --train-iters 3 --global-batch-size 8'.split(' ');
test.each([
  ['pretrain-qwen3-with-decentralized-pg.js', ['--tp-size', '2', '--pp-size', '1', ...SMALL]],
  ['pretrain-qwen3-simple.js', ['--tiny', '1', '--train-iters', '3']],
])('%s trains under torchrun', async (example, args) => {
  const cwd = process.cwd();
  const folder = temporaryFolder();
  process.chdir(folder); // where the run's folder goes
  try {
    const [first, second] = await runTwo('torchrun', [join(EXAMPLES, example), ...args]);
    expect(first?.code, first?.stderr).toBe(0);
    expect(first?.stdout.match(/^step/gm)).toHaveLength(3);
    expect(second?.code, second?.stderr).toBe(0);
  } finally {
    process.chdir(cwd);
  }
});

test('the command that a stopped run gives continues it to its end', async () => {
  const folder = temporaryFolder();
  const args = ['--nproc', '2', '--tp-size', '2', 'train.train_iters=150', `checkpoint.save=${join(folder, 'a b')}`];
  const run = new Running([process.execPath, BIN, ...pretrainArgs({ folder, args })]);
  await run.says(/"step":2,/, 60_000);
  process.kill(run.pid, 'SIGINT');
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(130);
  const result = readOutputs(stdout).at(-1);
  const saved = join(folder, 'a b', `step-${String(result?.['steps']).padStart(8, '0')}`);
  expect(result).toMatchObject({ ok: false, signal: 'SIGINT', saved });
  expect(stderr).toContain(`\nstopped after update ${result?.['steps']} by SIGINT`);
  expect(stderr).toContain(`\nsaved: update ${result?.['steps']} in ${saved}\n`);
  const [, command = ''] = /\ncontinue with: (.*)\n/.exec(stderr) ?? [];
  const next = await new Running(['sh', '-c', command]).ended;
  expect(next.code, `${command}\n${next.stderr}`).toBe(0);
  expect(stepsOf(next.stdout)[0]?.step).toBe(Number(result?.['steps']) + 1);
  expect(readOutputs(next.stdout).at(-1)).toMatchObject({ ok: true, steps: 150 });
});

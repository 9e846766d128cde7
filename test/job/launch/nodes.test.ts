import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test, vi, type TestContext } from 'vitest';
import { BIN } from '../../cli/mbridge.js';
import { TwoNodes } from './namespaces.js';
import { Running, childrenOf, freePort, isAlive, temporaryFolder, waitFor, type Outcome } from './processes.js';
import { readOutputs } from '../../helpers/outputs.js';

vi.setConfig({ testTimeout: 120_000 });

const FULL = process.env['MBRIDGE_TEST_FULL'] === '1';
const TOKEN = 'a token of these tests, not of a run';
const SMALL = ['--device', 'cpu', 'model.seq_length=64', 'train.global_batch_size=4', 'checkpoint.save=null'];

const made: { nodes?: TwoNodes | string } = {};
afterAll(() => {
  if (made.nodes instanceof TwoNodes) made.nodes.remove();
});

/** Made with the first test that needs them; without them, why not. */
function twoNodes(context: TestContext): TwoNodes {
  made.nodes ??= TwoNodes.make();
  return made.nodes instanceof TwoNodes ? made.nodes : context.skip(made.nodes);
}

/** A launcher of a run of two nodes that are one machine, or two namespaces. */
function launcher(
  node: number,
  args: readonly string[],
  { on, port = 29_500, env = {} }: { on?: TwoNodes; port?: number; env?: Record<string, string> } = {},
): Running {
  const host = on === undefined ? '127.0.0.1' : TwoNodes.ADDRESS;
  const flags = args.includes('--nnodes') ? [] : ['--nnodes', '2'];
  const place = [...flags, '--node-rank', `${node}`, '--rdzv-endpoint', `${host}:${port}`];
  const program = [process.execPath, BIN, 'pretrain', 'qwen3-tiny', ...SMALL, ...place, ...args];
  return new Running([...(on?.command(node) ?? []), ...program], { MBRIDGE_TOKEN: TOKEN, NO_COLOR: '1', ...env });
}

/** Loss and norm of each step: doubles as they were printed, so equal bits. */
function numbersOf(folder: string): unknown[] {
  const lines = readOutputs(readFileSync(join(folder, 'metrics.ndjson'), 'utf8'));
  return lines.map(({ step, loss, grad_norm }) => [step, loss, grad_norm]);
}

const LAYOUTS: Record<string, readonly string[]> = {
  'tensor parallel in a node, data parallel between': ['--tp-size', '2'],
  ...(FULL
    ? {
        'data parallel': [],
        'the pipeline between nodes': ['--pp-size', '2', '--tp-size', '2'],
        'tensor parallel over both nodes': ['--tp-size', '4'],
        'context parallel over both nodes': ['--cp-size', '4'],
      }
    : {}),
};

test.for(Object.keys(LAYOUTS))('two nodes come to the bits of one: %s', async (layout, context) => {
  const on = twoNodes(context);
  const folder = temporaryFolder();
  const [one, two] = [join(folder, 'one'), join(folder, 'two')];
  const args = [...(LAYOUTS[layout] ?? []), 'train.train_iters=2'];
  const alone = [BIN, 'pretrain', 'qwen3-tiny', ...SMALL, ...args, '--nproc', '4', '--log-dir', one];
  expect((await new Running([process.execPath, ...alone]).ended).code).toBe(0);
  const before = on.received();
  const [first, second] = [0, 1].map((node) => launcher(node, [...args, '--nproc', '2', '--log-dir', two], { on }));
  const [shown, other] = (await Promise.all([first?.ended, second?.ended])) as [Outcome, Outcome];
  expect(shown.code, shown.stderr).toBe(0);
  expect(other, other.stderr).toMatchObject({ code: 0, stdout: '' });
  expect(other.stderr).toMatch(/^node 1 of 2 \(.*\): rank 2-3 of 4; node 0 \(10\.77\.0\.1\) shows the run\n$/);
  expect(shown.stderr).toContain('between nodes the CPU talks over TCP');
  expect(shown.stdout).toMatch(/^step 1\/2 .*\nstep 2\/2 /);
  expect(numbersOf(two)).toEqual(numbersOf(one));
  expect(numbersOf(two)).toHaveLength(2);
  // The groups between the nodes did not share memory, which in namespaces of one machine they could.
  expect(on.received() - before).toBeGreaterThan(1_000_000);
  expect(readdirSync(two).filter((name) => name.startsWith('rank-'))).toHaveLength(4);
});

test.for([0, 1])('a worker killed on node %i ends both, with one cause and one exit code', async (node, context) => {
  const on = twoNodes(context);
  const run = join(temporaryFolder(), 'run');
  const args = ['--nproc', '1', 'train.train_iters=100000', '--log-dir', run];
  const [first, second] = [0, 1].map((node) => launcher(node, args, { on })) as [Running, Running];
  await first.says(/step +2\//, 60_000);
  const [worker = -1] = childrenOf((node === 0 ? first : second).pid);
  process.kill(worker, 'SIGKILL');
  const [shown, other] = await Promise.all([first.ended, second.ended]);
  expect(shown.stderr).toMatch(RegExp(`\nerror MB_WORKER_KILLED: rank ${node} was killed by SIGKILL at step \\d+\n`));
  if (node === 1) expect(shown.stderr).toMatch(/rank-1\/log\.ndjson on node 1 \(/);
  expect(other.stderr).toContain(`error MB_WORKER_KILLED: rank ${node} was killed by SIGKILL; node 0 says more\n`);
  // What the dead rank recorded comes from the launcher of its own node.
  expect(shown.stderr).toMatch(
    RegExp(
      String.raw`\n {2}rank ${1 - node} waits in \w+ #\d+ of [\w-]+ \[0,1\].*; rank ${node} (never entered it|entered it and died): its last was `,
    ),
  );
  expect(existsSync(join(run, 'rank-0', 'flight.json')) && existsSync(join(run, 'rank-1', 'flight.json'))).toBe(true);
  expect([shown.code, other.code]).toEqual([5, 5]);
  expect(JSON.parse(readFileSync(join(run, 'result.json'), 'utf8'))).toMatchObject({
    exit_code: 5,
    error: { rank: node },
  });
});

test('a launcher in each pod of a PyTorchJob, which numbers pods as ranks are numbered, makes one run', async () => {
  const run = join(temporaryFolder(), 'run');
  const port = await freePort();
  const args = ['--nproc', '2', 'train.train_iters=2', '--log-dir', run];
  const pods = [0, 1].map((node) => {
    const pet = { PET_NNODES: '2', PET_NODE_RANK: `${node}`, PET_NPROC_PER_NODE: '2' };
    return launcher(node, args, { port, env: { ...pet, RANK: `${node}`, WORLD_SIZE: '4', MASTER_ADDR: '127.0.0.1' } });
  });
  const [shown, other] = (await Promise.all(pods.map(({ ended }) => ended))) as [Outcome, Outcome];
  expect([shown.code, other.code], shown.stderr + other.stderr).toEqual([0, 0]);
  expect(numbersOf(run)).toHaveLength(2);
});

/** Whichever launcher is killed, the other says so, ends its workers and leaves none behind. */
test.runIf(FULL).for([0, 1])('the launcher of node %i is killed', async (victim, context) => {
  const on = twoNodes(context);
  const args = ['--nproc', '1', 'train.train_iters=100000', '--max-restarts', '3', '--log-dir'];
  const folder = temporaryFolder();
  const runs = [0, 1].map((node) => launcher(node, [...args, join(folder, 'run')], { on })) as [Running, Running];
  await runs[0].says(/step +1\//, 60_000);
  const workers = runs.flatMap(({ pid }) => childrenOf(pid));
  runs[victim]?.child.kill('SIGKILL');
  const left = (await runs[1 - victim]?.ended) as Outcome;
  expect(left.stderr).toMatch(
    new RegExp(`\\nerror MB_NODE_LOST: node ${victim} \\(.*\\) was lost: its launcher was killed, or .*\\n`),
  );
  expect(left.code).toBe(5);
  await waitFor('the workers to end', () => (workers.some(isAlive) ? undefined : true));
});

test.runIf(FULL)('a signal to the launcher of node 1 stops both after one update', async (context) => {
  const on = twoNodes(context);
  const args = ['--nproc', '1', 'train.train_iters=100000', '--log-dir', join(temporaryFolder(), 'run')];
  const [first, second] = [0, 1].map((node) => launcher(node, args, { on })) as [Running, Running];
  await first.says(/step +2\//, 60_000);
  second.child.kill('SIGTERM');
  const [shown, other] = await Promise.all([first.ended, second.ended]);
  expect(shown.stderr).toMatch(/\nstopped after update \d+ by SIGTERM/);
  expect(other.stderr).toContain('the run was stopped by SIGTERM\n');
  expect([shown.code, other.code]).toEqual([143, 143]);
});

test.runIf(FULL)('a run on two nodes begins again where a worker was killed', async (context) => {
  const on = twoNodes(context);
  const folder = temporaryFolder();
  const saves = [`checkpoint.save=${join(folder, 'saves')}`, 'checkpoint.save_interval=2'];
  const args = [
    '--nproc',
    '1',
    'train.train_iters=60',
    '--max-restarts',
    '1',
    ...saves,
    '--log-dir',
    join(folder, 'run'),
  ];
  const [first, second] = [0, 1].map((node) => launcher(node, args, { on })) as [Running, Running];
  await first.says(/step +5\//, 60_000);
  const [worker = -1] = childrenOf(second.pid);
  process.kill(worker, 'SIGKILL');
  const [shown, other] = await Promise.all([first.ended, second.ended]);
  expect(shown.stderr).toMatch(/restart 1 of 1 in 1 s, from update \d+/);
  expect(shown.stdout).toMatch(/step 60\/60/);
  expect([shown.code, other.code], other.stderr).toEqual([0, 0]);
});

/** Launchers that never become a run: what each says, in one sentence. `after`: seconds until the second is started. */
const REFUSED: Record<
  string,
  {
    args?: [readonly string[], readonly string[]];
    env?: Record<string, string>;
    ranks?: [number, number];
    says: [RegExp, RegExp?];
    codes: number[];
  }
> = {
  'a node that never comes': {
    args: [['dist.timeout_s=1'], []],
    ranks: [0, -1],
    says: [
      /^error MB_NODES_MISSING: node 1 of 2 did not come within 1 s \(dist\.timeout_s\)\n {2}start the same command there, with --rdzv-endpoint 127\.0\.0\.1:\d+ and its --node-rank\n$/,
    ],
    codes: [4],
  },
  'node 0 that never comes': {
    args: [['dist.timeout_s=1'], []],
    ranks: [1, -1],
    says: [/^error MB_NODES_MISSING: node 0 was not at 127\.0\.0\.1:\d+ within 1 s \(dist\.timeout_s\): .*\n.*\n$/],
    codes: [4],
  },
  'another configuration': {
    args: [[], ['optimizer.lr=5e-3']],
    says: [
      /^error MB_NODE_DIFFERS: optimizer\.lr is .* on node 0 and 0\.005 on node 1 \(.*\)\n/,
      /^error MB_NODE_DIFFERS: optimizer\.lr is .*\n$/,
    ],
    codes: [3, 3],
  },
  'another --nproc': {
    args: [
      ['--nproc', '2'],
      ['--nproc', '1', 'dist.timeout_s=600'],
    ],
    says: [
      /^error MB_NODE_DIFFERS: --nproc is 2 on node 0 and 1 on node 1/,
      /^error MB_NODE_DIFFERS: --nproc is 2 on node 0 and 1/,
    ],
    codes: [3, 3],
  },
  'another --nnodes': {
    args: [['dist.timeout_s=4'], ['--nnodes', '4']],
    says: [/MB_NODES_MISSING/, /^error MB_STORE_REFUSED: node 1: the run has 2 nodes, but node 1 was told 4\n/],
    codes: [4, 4],
  },
  'no token': {
    env: { MBRIDGE_TOKEN: '' },
    ranks: [0, -1],
    says: [/^error MB_NODE_TOKEN: MBRIDGE_TOKEN is not set, and 2 nodes need it\n/],
    codes: [4],
  },
};

test.concurrent.for(Object.keys(REFUSED))('refused: %s', async (name, { expect: expectHere }) => {
  const { args = [[], []], env = {}, ranks = [0, 1], says, codes } = REFUSED[name] ?? { says: [/x/], codes: [] };
  const port = await freePort();
  const nproc = (own: readonly string[]): string[] => (own.includes('--nproc') ? [] : ['--nproc', '1']);
  const runs = ranks.flatMap((rank, i) => {
    const own = args[i] ?? [];
    return rank < 0 ? [] : [launcher(rank, [...nproc(own), ...own], { port, env })];
  });
  const outcomes = await Promise.all(runs.map((run) => run.ended));
  outcomes.forEach(({ stderr }, i) => {
    const warned = stderr.replace(/^warning: waiting for .*\n/gm, '');
    expectHere(warned).toMatch(says[i] ?? /^$/);
  });
  expectHere(outcomes.map(({ code }) => code)).toEqual(codes);
});

test.runIf(FULL)('a node that comes late just works, and one whose rank is taken is told so', async () => {
  const port = await freePort();
  const args = ['--nproc', '1', 'train.train_iters=1', '--log-dir', join(temporaryFolder(), 'run')];
  const first = launcher(0, [...args, 'dist.timeout_s=60'], { port });
  await waitFor(
    'a notice',
    () => (first.stderr.includes('waiting for node 1 of 2 (10 s); start the same') ? true : undefined),
    30_000,
  );
  const second = launcher(1, [...args, 'dist.timeout_s=60'], { port });
  await waitFor('the run', () => (second.stderr.includes('shows the run') ? true : undefined), 30_000);
  const third = await launcher(1, [...args, 'dist.timeout_s=60'], { port }).ended;
  const [shown, other] = await Promise.all([first.ended, second.ended]);
  expect([shown.code, other.code], shown.stderr).toEqual([0, 0]);
  // Told while the run goes on; later nobody is there any more.
  expect(third.stderr).toMatch(
    /node 1 is connected already: two launchers were given the same --node-rank|MB_NODES_MISSING/,
  );
  expect(third.code).toBe(4);
});

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import {
  FILES_OF_TWO_RANKS,
  freePort,
  jsonLines,
  Running,
  temporaryFolder,
  type Outcome,
  waitFor,
  workerModule,
} from '../launch/processes.js';
import { checkOutput, readOutputs } from '../../helpers/outputs.js';

const SCRIPT = fileURLToPath(new URL('run-external.mjs', import.meta.url));

interface Given {
  worker: string;
  runDir?: string;
  trainIters?: number;
  test?: Record<string, unknown>;
  env?: Record<string, string>;
  timeoutS?: number;
}

const RUN = {
  config: { train: { train_iters: 2 }, dist: { timeout_s: 5 }, checkpoint: { save: null }, logger: { log_dir: null } },
  json: true,
};

function socketIn(runtimeDir: string): Promise<string> {
  return waitFor('a socket', () =>
    readdirSync(runtimeDir, { recursive: true })
      .map(String)
      .find((name) => name.endsWith('.sock')),
  );
}

/** Starts all ranks of one node, with torchrun's environment. */
async function startRanks(worldSize: number, given: Given): Promise<Running[]> {
  const { worker, runDir = join(temporaryFolder(), 'run'), trainIters = 2, test = {}, env = {}, timeoutS = 20 } = given;
  const config = {
    train: { train_iters: trainIters },
    dist: { timeout_s: timeoutS },
    checkpoint: { save: null },
    logger: { log_dir: null },
    test,
  };
  const run = { workerModule: workerModule(worker), config, runDir, json: true };
  const port = await freePort();
  const meetingPlace = temporaryFolder(); // as XDG_RUNTIME_DIR: sockets of other runs are not seen
  onTestFinished(() => {
    expect(readdirSync(meetingPlace)).toEqual([]);
  });
  return Array.from({ length: worldSize }, (_, rank) => {
    const ranks = { RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: worldSize, LOCAL_WORLD_SIZE: worldSize };
    const all = {
      ...ranks,
      MASTER_ADDR: 'localhost',
      MASTER_PORT: port - 1,
      TORCHELASTIC_RUN_ID: 'none',
      XDG_RUNTIME_DIR: meetingPlace,
      ...env,
    };
    const text = Object.fromEntries(Object.entries(all).map(([key, value]) => [key, String(value)]));
    return new Running([process.execPath, SCRIPT, JSON.stringify(run)], text);
  });
}

function endOf(runs: Running[]): Promise<Outcome[]> {
  return Promise.all(runs.map((run) => run.ended));
}

it('workers find each other without our launcher; the reporting rank prints on its stdout', async () => {
  const runDir = join(temporaryFolder(), 'run');
  const [first, second] = await endOf(await startRanks(2, { worker: 'steps', runDir }));
  const lines = readOutputs(first?.stdout ?? '');
  expect(lines).toMatchObject([
    { type: 'step', step: 1 },
    { type: 'step', step: 2 },
    { type: 'result', ok: true, exit_code: 0, run_dir: runDir, steps: 2 },
  ]);
  expect(first?.stderr).toMatch(/^\[r0\] ready with 1 threads\nfinished in [\d.]+ s; logs and configuration: .*\n$/);
  expect(second).toMatchObject({ code: 0, stdout: '', stderr: '' });
  expect(first?.code).toBe(0);
  const files = readdirSync(runDir, { recursive: true }).sort();
  expect(files.filter((name) => !String(name).startsWith('events.'))).toEqual([
    'metrics.ndjson',
    ...FILES_OF_TWO_RANKS,
  ]);
  const printed = (first?.stdout ?? '').split('\n').slice(0, 2);
  expect(readFileSync(join(runDir, 'metrics.ndjson'), 'utf8')).toBe(`${printed.join('\n')}\n`);
});

it('a failing worker says why, leaves its report, and the others lose a peer', async () => {
  const runDir = join(temporaryFolder(), 'run');
  const test = { 0: 'say so and wait', 1: 'config error once all are here', 2: 'say so and wait' };
  const [first, second, third] = await endOf(await startRanks(3, { worker: 'misbehave', runDir, test }));
  expect(second).toMatchObject({
    code: 3,
    stderr: '[r1] error MB_TEST_CONFIG: tp 3 does not divide 8 heads\n  use 2 or 4\n',
  });
  // As the launcher would, rank 0 ends with the exit code of the cause, and says nothing of its own end.
  expect(first?.code).toBe(3);
  expect(first?.stderr).not.toContain('[r0] error');
  expect(first?.stderr).toMatch(
    /^error MB_TEST_CONFIG: rank 1: tp 3 does not divide 8 heads\n {2}use 2 or 4\n {2}rank 0, 2: lost a peer\n/m,
  );
  const result = readOutputs(first?.stdout ?? '').at(-1);
  expect(result).toMatchObject({ ok: false, exit_code: 3, error: { rank: 1, code: 'MB_TEST_CONFIG' } });
  expect(JSON.parse(readFileSync(join(runDir, 'result.json'), 'utf8'))).toEqual(result);
  expect(third?.code).toBe(5);
  const report = checkOutput(JSON.parse(readFileSync(join(runDir, 'rank-1', 'error.json'), 'utf8')));
  expect(report).toMatchObject({ rank: 1, code: 'MB_TEST_CONFIG' });
});

it('the first signal stops in order, and the exit code names it', async () => {
  const runs = await startRanks(1, { worker: 'steps', trainIters: 100_000, test: { stepMs: 5 } });
  await runs[0]?.says(/"step":2/);
  runs[0]?.child.kill('SIGTERM');
  const [end] = await endOf(runs);
  expect(readOutputs(end?.stdout ?? '').at(-1)).toMatchObject({ type: 'result', ok: false, signal: 'SIGTERM' });
  expect(end?.stderr).toMatch(/\nstopped after update \d+ by SIGTERM.*\nnot saved: checkpoint\.save is not set\n/);
  expect(end?.code).toBe(143);
});

it('the second signal ends a worker that does not stop', async () => {
  const runs = await startRanks(1, { worker: 'misbehave', test: { 0: 'ignore everything' } });
  const [, , child] = (await runs[0]?.says(/"worker":(\d+),"child":(\d+)/)) ?? [];
  onTestFinished(() => {
    process.kill(Number(child), 'SIGKILL'); // nobody else ends it: there is no launcher
  });
  runs[0]?.child.kill('SIGINT');
  await new Promise((resolve) => setTimeout(resolve, 300));
  runs[0]?.child.kill('SIGINT');
  await new Promise((resolve) => runs[0]?.child.once('exit', resolve));
  expect(runs[0]?.child.signalCode).toBe('SIGINT'); // no exit of ours, which would wait for native calls
});

it.each(['0', '1'])('rank %s says whom it waits for, and a signal ends it at once', async (rank) => {
  const env = { RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2' };
  const [run] = await startRanks(1, { worker: 'steps', env, timeoutS: 100 });
  const missing =
    rank === '0'
      ? /warning: waiting for rank 1 of 2 \(10 s\)/
      : /warning: waiting for rank 0 of 2 \(10 s\); it serves the store at .*\.sock/;
  await waitFor('the notice', () => (missing.test(run?.stderr ?? '') ? true : undefined), 25_000);
  const told = performance.now();
  run?.child.kill('SIGTERM');
  const end = await run?.ended;
  expect(performance.now() - told).toBeLessThan(5_000);
  expect(end?.stderr).toContain('SIGTERM: ended before the first update');
  expect(end?.code ?? end?.signal).toBe(rank === '0' ? 'SIGTERM' : 143);
});

it.each(['SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGXCPU'] as const)(
  '%s to one rank stops all ranks after the same update',
  async (signal) => {
    const runs = await startRanks(2, { worker: 'agree', trainIters: 100_000, test: { stepMs: 5 } });
    await runs[0]?.says(/"step":2/);
    runs[1]?.child.kill(signal);
    const ends = await endOf(runs);
    const code = 128 + constants.signals[signal];
    expect(ends.map((end) => end.code)).toEqual([code, code]);
    const last = jsonLines(ends.map(({ stdout }) => stdout).join('')).filter(({ type }) => type === 'last');
    expect(last).toHaveLength(2);
    expect(last[0]?.['step']).toBe(last[1]?.['step']);
    expect(ends[0]?.stderr).not.toContain('Debugger');
  },
);

it('rank 0 shows the first cause as the launcher would, also where that rank could not say it', async () => {
  const test = { 0: 'say so and wait', 1: 'kill itself once all are here', 2: 'say so and wait' };
  const [first] = await endOf(await startRanks(3, { worker: 'misbehave', test }));
  expect(first?.stderr).toMatch(
    /^error MB_WORKER_LOST: rank 1 was lost: killed, crashed, or cut off\n.*\n {2}rank 0, 2: lost a peer\n {2}log: .*rank-1/m,
  );
  expect(readOutputs(first?.stdout ?? '').at(-1)).toMatchObject({
    type: 'result',
    ok: false,
    exit_code: 5,
    error: { rank: 1, code: 'MB_WORKER_LOST' },
  });
  // Nobody else could read what a rank recorded.
  const runDir = jsonLines(first?.stdout ?? '').at(-1)?.['run_dir'] as string;
  expect([0, 1].map((rank) => existsSync(join(runDir, `rank-${rank}`, 'flight.json')))).toEqual([true, false]);
});

it('a bad environment is one line, before anything is made', async () => {
  const runDir = join(temporaryFolder(), 'run');
  const [end] = await endOf(await startRanks(1, { worker: 'steps', runDir, env: { RANK: 'x' } }));
  expect(end?.stderr).toMatch(/^\[r0\] error MB_WORKER_ENVIRONMENT: .*RANK is 'x'.*\n {2}start workers with .*\n$/);
  expect(end?.code).toBe(4);
  expect(existsSync(runDir)).toBe(false);
});

it('a port that is taken is named, with what to set', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
  });
  const port = String((server.address() as AddressInfo).port);
  const nodes = { WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '1', MBRIDGE_TOKEN: 'a'.repeat(32), MASTER_ADDR: '127.0.0.1' };
  const [end] = await endOf(await startRanks(1, { worker: 'steps', env: { ...nodes, MBRIDGE_STORE_PORT: port } }));
  expect(end?.stderr).toMatch(/MB_STORE_PORT: rank 0: cannot serve the rendezvous store: listen EADDRINUSE.*\n {2}\w/);
  expect(end?.code).toBe(4);
});

it('two runs of one name do not mix: the second is refused', async () => {
  const env = { WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2', MASTER_PORT: '29000', XDG_RUNTIME_DIR: temporaryFolder() };
  const [first] = await startRanks(1, { worker: 'misbehave', env, test: { 0: 'wait' } });
  await socketIn(env.XDG_RUNTIME_DIR);
  const [second] = await endOf(await startRanks(1, { worker: 'steps', env }));
  expect(second?.stderr).toMatch(/MB_STORE_PORT: rank 0: another run is starting .*\n {2}set MASTER_PORT/);
  expect(second?.code).toBe(4);
  first?.child.kill('SIGTERM');
  await new Promise((resolve) => setTimeout(resolve, 300));
  first?.child.kill('SIGTERM');
  await first?.ended;
  expect(readdirSync(env.XDG_RUNTIME_DIR)).toEqual([]);
});

it('ranks of one node listen on no port, and each may have been started through a wrapper', async () => {
  const listening = (): Set<string> =>
    new Set(
      ['tcp', 'tcp6'].flatMap((file) =>
        readFileSync(`/proc/net/${file}`, 'utf8')
          .split('\n')
          .filter((line) => / 0A /.test(line))
          .map((line) => line.trim().split(/\s+/)[1] ?? ''),
      ),
    );
  const env = { WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2', MASTER_PORT: '29100', XDG_RUNTIME_DIR: temporaryFolder() };
  const [first] = await startRanks(1, { worker: 'steps', env });
  await socketIn(env.XDG_RUNTIME_DIR);
  const port = (29_101).toString(16).toUpperCase();
  expect([...listening()].filter((address) => address.endsWith(`:${port}`))).toEqual([]);
  const run = JSON.stringify({ ...RUN, workerModule: workerModule('steps'), runDir: join(temporaryFolder(), 'run') });
  const other = { ...env, RANK: '1', LOCAL_RANK: '1', TORCHELASTIC_RUN_ID: 'none' };
  const wrapped = new Running(['/bin/sh', '-c', `"$0" "$@"; exit $?`, process.execPath, SCRIPT, run], other);
  expect((await wrapped.ended).code).toBe(0);
  expect((await first?.ended)?.code).toBe(0);
});

it('ranks of several nodes meet on the address of MASTER_ADDR alone; a weak token is warned of', async () => {
  const nodes = { LOCAL_RANK: '0', LOCAL_WORLD_SIZE: '1', MASTER_ADDR: '127.0.0.1', MBRIDGE_TOKEN: 'short' };
  const [first, second] = await endOf(await startRanks(2, { worker: 'steps', env: nodes }));
  expect([first?.code, second?.code]).toEqual([0, 0]);
  expect(first?.stderr).toMatch(/warning: MBRIDGE_TOKEN has 5 characters/);
  const [other] = await endOf(
    await startRanks(1, { worker: 'steps', env: { ...nodes, WORLD_SIZE: '2', MBRIDGE_TOKEN: '' } }),
  );
  expect(other?.stderr).toMatch(/MB_WORKER_ENVIRONMENT: .*MBRIDGE_TOKEN is not set/);
  expect(other?.code).toBe(4);
});

it('a missing rank is named when time is up', async () => {
  const runs = await startRanks(1, {
    worker: 'misbehave',
    env: { WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2' },
    test: { 0: 'wait 0.2 s' },
  });
  const [end] = await endOf(runs);
  expect(end?.stderr).toContain("rank 0: 'never' was not set within 0.2 s: rank 1 of 2 never connected");
  expect(end?.code).toBe(4);
});

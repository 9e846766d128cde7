import { appendFileSync, existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  CONFIG,
  LAUNCH_SCRIPT,
  Running,
  childrenOf,
  isAlive,
  jsonLines,
  startLaunch,
  FILES_OF_TWO_RANKS,
  temporaryFolder,
  workerModule,
} from './processes.js';
import { checkOutput, readOutputs } from '../../helpers/outputs.js';

describe('a run that succeeds', () => {
  it('prints readable steps on stdout and everything else on stderr', async () => {
    const { code, stdout, stderr } = await startLaunch('steps', { nproc: 2, cores: 5 }).ended;
    expect(stdout).toMatchInlineSnapshot(`
      "step 1/3  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms   2,522 tok/s/rank
      step 2/3  loss 5.1234  norm   NaN  lr 1.0e-3   812 ms   2,522 tok/s/rank
      step 3/3  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms   2,522 tok/s/rank
      result  steps=3
      "
    `);
    expect(stderr).toMatch(
      /^\[r0\] ready with 2 threads\nfinished in [\d.]+ s; logs and configuration: .*\nexit code 0\n$/,
    );
    expect(code).toBe(0);
  });

  it('prints one JSON object a line with json, the result last', async () => {
    const { stdout } = await startLaunch('steps', { nproc: 2, json: true }).ended;
    const lines = readOutputs(stdout);
    expect(lines.map(({ type, step }) => [type, step])).toEqual([
      ['step', 1],
      ['step', 2],
      ['step', 3],
      ['result', undefined],
    ]);
    expect(lines[1]).toMatchObject({ loss: 5.1234, grad_norm: null, tokens_per_s_per_device: 2522.2 });
    expect(lines[3]).toMatchObject({ ok: true, exit_code: 0, steps: 3 });
  });

  it('leaves a run folder with its record, its configuration and the logs, and nothing else', async () => {
    const runDir = join(temporaryFolder(), 'deep', 'run');
    const job = { nproc: 2, runDir, layout: { tp: 2 } };
    await startLaunch('steps', job).ended;
    await startLaunch('steps', job).ended; // a folder that was asked for may be used again
    const files = readdirSync(runDir, { recursive: true }).sort();
    const isEvents = (name: unknown): boolean => String(name).startsWith('events.out.tfevents.');
    expect(files.filter((name) => !isEvents(name))).toEqual(['metrics.ndjson', ...FILES_OF_TWO_RANKS]);
    // One of each run.
    expect(files.filter(isEvents)).toHaveLength(2);
    for (const name of files.filter(isEvents)) {
      expect(readFileSync(join(runDir, String(name)), 'latin1')).toContain('train/loss');
    }
    const record = JSON.parse(readFileSync(join(runDir, 'run.json'), 'utf8')) as Record<string, unknown>;
    expect(record.sessions).toHaveLength(2);
    expect(record).toMatchObject({
      type: 'run_record',
      nproc: 2,
      device: 'cpu',
      layout: { tp: 2 },
      config: { train: { train_iters: 3 } },
    });
    expect(readFileSync(join(runDir, 'resolved.yaml'), 'utf8')).toContain('train_iters: 3');
    const log = jsonLines(readFileSync(join(runDir, 'rank-1', 'log.ndjson'), 'utf8'));
    expect(log.filter(({ msg }) => String(msg).startsWith('ready'))).toHaveLength(2);
  });

  it('does not wait for ever for a worker whose exit hangs', async () => {
    const job = { nproc: 1, json: true, gracePeriodMs: 200 };
    const { code, stdout, stderr } = await startLaunch('misbehave', job, { 0: 'done, but its exit hangs' }).ended;
    expect(stderr).toContain('warning: rank 0 did not end in time and was killed');
    expect(readOutputs(stdout)).toMatchObject([
      { type: 'warning', text: 'rank 0 did not end in time and was killed' },
      { type: 'result', ok: true },
    ]);
    expect(code).toBe(0);
  });

  it('starts 8 workers in seconds', async () => {
    const { code, seconds } = await startLaunch('steps', { nproc: 8 }).ended;
    expect(code).toBe(0);
    expect(seconds).toBeLessThan(10);
  });
});

describe('metrics.ndjson', () => {
  it('holds the step lines of --json, those of a run in the same folder behind them', async () => {
    const runDir = join(temporaryFolder(), 'run');
    const metrics = join(runDir, 'metrics.ndjson');
    const { stdout } = await startLaunch('steps', { nproc: 2, json: true, runDir }).ended;
    const steps = stdout.split('\n').filter((line) => line.includes('"type":"step"'));
    expect(steps).toHaveLength(3);
    expect(readFileSync(metrics, 'utf8')).toBe(`${steps.join('\n')}\n`);
    // As a kill in the middle of a line would leave it.
    appendFileSync(metrics, '{"type":"st');
    await startLaunch('steps', { nproc: 1, runDir }).ended;
    expect(readFileSync(metrics, 'utf8')).toBe(`${[...steps, '{"type":"st', ...steps].join('\n')}\n`);
  });

  it('is complete for every step that was taken when the launcher is killed', async () => {
    const runDir = join(temporaryFolder(), 'run');
    const run = startLaunch('steps', { nproc: 1, runDir, json: true, train_iters: 100_000 });
    await run.says(/"step":5,/);
    process.kill(run.pid, 'SIGKILL');
    await run.ended;
    const steps = readOutputs(readFileSync(join(runDir, 'metrics.ndjson'), 'utf8')).map(({ step }) => step);
    expect(steps.slice(0, 5)).toEqual([1, 2, 3, 4, 5]);
  });

  it('is given up with one warning where it cannot be written, and the run goes on', async () => {
    const runDir = join(temporaryFolder(), 'run');
    mkdirSync(join(runDir, 'metrics.ndjson'), { recursive: true });
    const { code, stdout, stderr } = await startLaunch('steps', { nproc: 2, json: true, runDir }).ended;
    expect(code).toBe(0);
    expect(readOutputs(stdout).filter(({ type }) => type === 'step')).toHaveLength(3);
    expect(stderr.match(/warning: .*metrics\.ndjson cannot be written: .*the run goes on/g)).toHaveLength(1);
  });
});

describe('what workers write', () => {
  it('is captured by whole lines, and shown for rank 0; warnings are shown for all', async () => {
    const runDir = join(temporaryFolder(), 'run');
    const { stdout, stderr } = await startLaunch('talk', { nproc: 2, runDir }).ended;
    expect(stdout.trim().split('\n').sort()).toEqual(['note  rank=0', 'note  rank=1']);
    const lines = stderr.split('\n').filter((line) => line.startsWith('[r'));
    expect(lines.sort()).toEqual([
      '[r0] an info size=3',
      '[r0] err: €',
      expect.stringMatching(/^\[r0\] error: an error count=12 cause=\{"type":"RangeError","message":"too far",/),
      '[r0] no newline at the end',
      '[r0] out 0: first half',
      '[r0] out: grün',
      '[r0] warning: a warning',
      expect.stringMatching(/^\[r1\] error: an error count=12 /),
      '[r1] warning: a warning',
    ]);
    expect(readFileSync(join(runDir, 'rank-1', 'stdout.log'), 'utf8')).toBe('out 1: first half\nout: grün\n');
    expect(readFileSync(join(runDir, 'rank-1', 'stderr.log'), 'utf8')).toBe('err: €\nno newline at the end\n');
    const log = jsonLines(readFileSync(join(runDir, 'rank-1', 'log.ndjson'), 'utf8'));
    const now = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string;
    expect(log).toMatchObject([
      { level: 20, time: now, rank: 1, msg: 'rank begins' },
      { level: 20, time: now, rank: 1, msg: 'only in the file' },
      { level: 20, msg: 'what JSON cannot hold', fields: expect.stringContaining('circular') as string },
      { level: 30, size: 3, msg: 'an info' },
      { level: 50, count: '12', cause: { type: 'RangeError', message: 'too far' }, msg: 'an error' },
      { level: 40, msg: 'a warning' },
    ]);
  });

  it('has no prefix with one process, and no colour off a terminal', async () => {
    const { stderr } = await startLaunch('talk', { nproc: 1 }).ended;
    expect(stderr).toContain('\nwarning: a warning\n');
  });
});

describe('a run that fails', () => {
  const WAITING = { 0: 'wait', 2: 'wait' };
  const CASES: [act: string, exitCode: number, errorCode: string, text: RegExp][] = [
    [
      'config error',
      3,
      'MB_TEST_CONFIG',
      /^error MB_TEST_CONFIG: rank 1: tp 3 does not divide 8 heads\n {2}use 2 or 4\n/m,
    ],
    [
      'bug',
      1,
      'MB_PROGRAM',
      /^error MB_\w+: rank 1: x is not a function.*\n {4}TypeError: x is not a function\n {4} {4}at /m,
    ],
    ['late bug', 1, 'MB_PROGRAM', /thrown from a timer/],
    ['rejection nobody awaits', 1, 'MB_PROGRAM', /floating/],
    ['native time-out', 6, 'MB_COLLECTIVE_TIMEOUT', /rank 1 did not join within 5 s/],
    ['native peer loss', 5, 'MB_PEER_LOST', /rank 1 died/],
    ['native memory', 4, 'MB_MEMORY', /^error MB_MEMORY: rank 1: needs 80 GB\n {2}`mbridge plan`/m],
    ['missing file', 7, 'MB_IO', /ENOENT.*\/nowhere\/model\.safetensors/],
    [
      'abort',
      5,
      'MB_WORKER_KILLED',
      /rank 1 was killed by SIGABRT at step 7\n {2}last lines of its stderr:\n[^]* {4}line 30\n {4}terminate called/,
    ],
    ['exit 0', 5, 'MB_WORKER_CRASHED', /rank 1 left with exit code 0 before its work was done/],
    ['exit 42', 5, 'MB_WORKER_CRASHED', /rank 1 crashed with exit code 42/],
    ['kill itself', 5, 'MB_WORKER_KILLED', /rank 1 was killed by SIGKILL/],
    ['fail and hang', 3, 'MB_TEST_CONFIG', /does not divide/],
  ];
  it.each(CASES)('names the rank and the reason: %s', async (act, exitCode, errorCode, text) => {
    const job = { nproc: 3, json: true };
    const { code, stdout, stderr, seconds } = await startLaunch('misbehave', job, { ...WAITING, 1: act }).ended;
    expect(stderr).toMatch(text);
    // Each of them by itself where one was stopped before it noticed.
    expect(stderr).toMatch(/rank 0, 2: (lost a peer|stopped)|rank [02]: lost a peer; rank [02]: stopped/);
    expect(readOutputs(stdout).at(-1)).toMatchObject({
      type: 'result',
      ok: false,
      exit_code: exitCode,
      error: { rank: 1, code: errorCode },
    });
    expect(code).toBe(exitCode);
    expect(seconds).toBeLessThan(8); // of which starting three workers, while other tests run, is most
  });

  it('ends ranks that are stuck in native code', async () => {
    const run = startLaunch('misbehave', { nproc: 3 }, { 0: 'block', 1: 'exit 42', 2: 'block' });
    const { code, stderr } = await run.ended;
    expect(stderr).toContain('rank 0, 2: stopped');
    expect(code).toBe(5);
  });

  it('ends within 5 s, with exit code 5 and the rank, when a worker is killed', async () => {
    const run = startLaunch('steps', { nproc: 3, train_iters: 1000 }, { stepMs: 10 });
    await run.says(/step +3\//);
    const workers = childrenOf(run.pid);
    expect(workers).toHaveLength(3);
    const victim = workers.find((pid) => readFileSync(`/proc/${pid}/environ`, 'utf8').includes('\0RANK=2\0'));
    const killed = performance.now();
    process.kill(victim ?? -1, 'SIGKILL');
    const { code, stderr } = await run.ended;
    expect(performance.now() - killed).toBeLessThan(5_000);
    expect(stderr).toMatch(/error MB_WORKER_KILLED: rank 2 was killed by SIGKILL at step \d+\n/);
    expect(code).toBe(5);
    expect(workers.filter(isAlive)).toEqual([]);
  });

  it('leaves a report of each rank that failed, and none of an earlier run', async () => {
    const runDir = join(temporaryFolder(), 'run');
    await startLaunch('misbehave', { nproc: 2, runDir }, { 0: 'wait', 1: 'config error' }).ended;
    const report = checkOutput(JSON.parse(readFileSync(join(runDir, 'rank-1', 'error.json'), 'utf8')));
    expect(report).toMatchObject({
      type: 'rank_error',
      rank: 1,
      step: 0,
      code: 'MB_TEST_CONFIG',
      exit_code: 3,
      hint: 'use 2 or 4',
    });
    expect(report).not.toHaveProperty('stack');
    const log = jsonLines(readFileSync(join(runDir, 'rank-1', 'log.ndjson'), 'utf8'));
    expect(log.at(-1)).toMatchObject({ code: 'MB_TEST_CONFIG', hint: 'use 2 or 4' });
    expect((await startLaunch('steps', { nproc: 1, runDir }).ended).code).toBe(0);
    expect(existsSync(join(runDir, 'rank-1', 'error.json'))).toBe(false);
  });

  it('tells the cause also where the report cannot be written', async () => {
    const acts = { 0: 'wait', 1: 'config error without a folder' };
    const { code, stderr } = await startLaunch('misbehave', { nproc: 2 }, acts).ended;
    expect(stderr).toMatch(/^error MB_TEST_CONFIG: rank 1: tp 3 does not divide 8 heads$/m);
    expect(code).toBe(3);
  });

  it('says what is missing when the native addon does not load', async () => {
    const { code, stderr } = await startLaunch('steps', { nproc: 2, env: { MBRIDGE_NATIVE: '/nowhere.node' } }).ended;
    expect(stderr).toMatch(/^error MB_NATIVE_MISSING: rank \d: .*\/nowhere\.node.*$/m);
    expect(code).toBe(4);
  });

  it('refuses a run folder that cannot be made', async () => {
    const { code, stderr } = await startLaunch('steps', {
      nproc: 1,
      runDir: join(fileURLToPath(import.meta.url), 'run'),
    }).ended;
    expect(stderr).toContain('MB_RUN_FOLDER');
    expect(code).not.toBe(0);
  });
});

describe('what cannot be told', () => {
  it('a log file on a full disk costs one warning, not the run', async () => {
    const runDir = join(temporaryFolder(), 'run');
    mkdirSync(join(runDir, 'rank-1'), { recursive: true });
    symlinkSync('/dev/full', join(runDir, 'rank-1', 'log.ndjson'));
    const { code, stdout, stderr } = await startLaunch('talk', { nproc: 2, runDir, json: true }).ended;
    expect(stderr.match(/\[r1\] warning: .*log\.ndjson cannot be written, and lacks lines.*ENOSPC/g)).toHaveLength(1);
    expect(readOutputs(stdout, ['note']).at(-1)).toMatchObject({ type: 'result', ok: true });
    expect(code).toBe(0);
  });

  it.each([
    ['stdout', '>/dev/full', 7],
    ['stderr', '2>/dev/full', 0],
    ['stderr that is closed', '2>&-', 0],
    ['both', '>/dev/full 2>&1', 7],
  ])('the run goes on without %s', async (_, redirection, exitCode) => {
    const runDir = join(temporaryFolder(), 'run');
    const job = {
      nproc: 2,
      runDir,
      config: { ...CONFIG, train: { train_iters: 30 } },
      workerModule: workerModule('steps'),
    };
    const line = `exec "$0" "$1" "$2" ${redirection}`;
    const run = new Running(['sh', '-c', line, process.execPath, LAUNCH_SCRIPT, JSON.stringify(job)]);
    const { code, stderr } = await run.ended;
    expect(code, stderr).toBe(exitCode);
    if (redirection === '>/dev/full') expect(stderr).toMatch(/warning: stdout cannot be written, .*ENOSPC/);
    const log = readFileSync(join(runDir, 'rank-0', 'log.ndjson'), 'utf8');
    expect(log).toContain('the last step was 30');
  });
});

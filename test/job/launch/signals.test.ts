import { describe, expect, it } from 'vitest';
import { childrenOf, isAlive, startLaunch, waitFor } from './processes.js';
import { readOutputs } from '../../helpers/outputs.js';

describe('signals', () => {
  const SIGNALS: [NodeJS.Signals, number][] = [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGUSR1', 138],
    ['SIGUSR2', 140],
    ['SIGXCPU', 152],
  ];
  it.each(SIGNALS)('the first %s lets workers finish their step and end in order', async (signal, exitCode) => {
    const run = startLaunch('steps', { nproc: 2, json: true, train_iters: 100_000 }, { stepMs: 5 });
    await run.says(/"step":2/);
    process.kill(run.pid, signal);
    const { code, stdout, stderr } = await run.ended;
    expect(stderr).toContain(`${signal}: workers stop after their current step`);
    const result = readOutputs(stdout).at(-1);
    expect(result).toMatchObject({ type: 'result', ok: false, exit_code: exitCode, signal });
    expect(result?.['steps']).toBeGreaterThan(1); // the worker's own result: it was not killed
    expect(stderr).toMatch(/\nstopped after update \d+ by SIG\w+, .*\nnot saved: checkpoint.save is not set\nlogs and/);
    expect(stderr).not.toContain('Debugger');
    expect(code).toBe(exitCode);
  });

  it('a signal to one worker stops the run in order too', async () => {
    const run = startLaunch('steps', { nproc: 1, json: true, train_iters: 100_000 }, { stepMs: 5 });
    await run.says(/"step":2/);
    process.kill(childrenOf(run.pid)[0] ?? -1, 'SIGTERM');
    expect(await run.ended).toMatchObject({ code: 143 });
  });

  it('a signal before the first step ends the run at once', async () => {
    const run = startLaunch('misbehave', { nproc: 2, json: true }, {});
    const workers = await waitFor('both workers', () => {
      const found = childrenOf(run.pid);
      return found.length === 2 ? found : undefined;
    });
    await new Promise((resolve) => setTimeout(resolve, 1_500)); // until they wait for a key that nobody sets
    process.kill(run.pid, 'SIGUSR2');
    const told = performance.now();
    const { code, stderr } = await run.ended;
    expect(performance.now() - told).toBeLessThan(10_000); // the grace period has 30 s
    expect(stderr).toContain('stopped before the first update by SIGUSR2');
    expect(code).toBe(140);
    expect(workers.filter(isAlive)).toEqual([]);
  });

  it('the first signal after a scheduler has warned lets workers finish as well', async () => {
    const run = startLaunch('steps', { nproc: 1, json: true, train_iters: 100_000 }, { stepMs: 1000 });
    await run.says(/"step":1/);
    process.kill(run.pid, 'SIGUSR1');
    await waitFor('the first', () => (run.stderr.includes('SIGUSR1: workers stop') ? true : undefined));
    process.kill(run.pid, 'SIGTERM');
    const { code, stdout, stderr } = await run.ended;
    expect(code).toBe(138);
    expect(readOutputs(stdout).at(-1)).toMatchObject({ signal: 'SIGUSR1', steps: 2 });
    expect(stderr).not.toContain('killed');
  });

  it('a hangup that nohup has asked to ignore is ignored, in the launcher and in workers', async () => {
    const env = { _: '/usr/bin/nohup' };
    const run = startLaunch('steps', { nproc: 1, json: true, train_iters: 100_000, env }, { stepMs: 5 });
    await run.says(/"step":2/);
    for (const pid of [run.pid, ...childrenOf(run.pid)]) process.kill(pid, 'SIGHUP');
    const seen = readOutputs(run.stdout).length;
    await waitFor('more steps', () => (run.stdout.split('\n').length > seen + 100 ? true : undefined));
    expect(run.stderr).not.toContain('SIGHUP');
    process.kill(run.pid, 'SIGINT');
    expect((await run.ended).code).toBe(130);
  });

  it('the second kills stubborn workers and what they started', async () => {
    const run = startLaunch('misbehave', { nproc: 1, json: true }, { 0: 'ignore everything' });
    const [, worker, child] = await run.says(/"worker":(\d+),"child":(\d+)/);
    process.kill(run.pid, 'SIGINT');
    await waitFor('the first signal', () => (run.stderr.includes('again to kill') ? true : undefined));
    process.kill(run.pid, 'SIGINT'); // npx passes on what the terminal has already sent: no second request
    await new Promise((resolve) => setTimeout(resolve, 250));
    expect(isAlive(Number(child))).toBe(true);
    process.kill(run.pid, 'SIGINT');
    expect(await run.ended).toMatchObject({ code: 130 });
    expect([Number(worker), Number(child)].filter(isAlive)).toEqual([]);
  });

  it('the grace period ends them as well', async () => {
    const run = startLaunch('misbehave', { nproc: 1, json: true, gracePeriodMs: 200 }, { 0: 'ignore everything' });
    const [, worker, child] = await run.says(/"worker":(\d+),"child":(\d+)/);
    process.kill(run.pid, 'SIGTERM');
    const { code, stderr } = await run.ended;
    expect(stderr).toContain('rank 0 did not end in time');
    expect(code).toBe(143);
    expect([Number(worker), Number(child)].filter(isAlive)).toEqual([]);
  });

  it.each(['steps', 'misbehave'])('no worker outlives a launcher that is killed (%s)', async (worker) => {
    const run = startLaunch(
      worker,
      { nproc: 3, train_iters: 100_000 },
      { 0: 'block', 1: 'block', 2: 'block', stepMs: 5 },
    );
    const workers = await waitFor('three workers', () => {
      const found = childrenOf(run.pid);
      return found.length === 3 ? found : undefined;
    });
    if (worker === 'steps') await run.says(/step/);
    else await new Promise((resolve) => setTimeout(resolve, 1_500)); // until they block
    process.kill(run.pid, 'SIGKILL');
    await waitFor('the workers to end', () => (workers.some(isAlive) ? undefined : true), 3_000);
  });

  it('stops in order when nobody reads the results any more', async () => {
    const run = startLaunch('steps', { nproc: 1, train_iters: 100_000 }, { stepMs: 5 });
    await run.says(/step/);
    run.child.stdout?.destroy();
    expect(await run.ended).toMatchObject({ code: 141 });
  });
});

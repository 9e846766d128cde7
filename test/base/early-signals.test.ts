import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hangupIgnored, programOptions } from '../../src/base/early-signals.js';
import { BIN } from '../cli/mbridge.js';
import { Running, childrenOf, temporaryFolder, waitFor } from '../job/launch/processes.js';

/** Whether something listens on a port of this machine. */
function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

const RUN = ['pretrain', 'qwen3-tiny', '--nproc', '1', '--device', 'cpu', 'train.train_iters=100000'];

describe('SIGUSR1', () => {
  it('opens no debugger in a worker, from its first moment on', async () => {
    const run = new Running([process.execPath, BIN, ...RUN, '--log-dir', join(temporaryFolder(), 'run')]);
    const [worker = -1] = await waitFor('a worker', () => {
      const found = childrenOf(run.pid);
      return found.length > 0 ? found : undefined;
    });
    process.kill(worker, 'SIGUSR1'); // in its first moment, before any of our code runs
    await waitFor(
      'its end, or its first step',
      () => (run.child.exitCode !== null || /^step/m.test(run.stdout) ? true : undefined),
      30_000,
    );
    expect(await listens(9229)).toBe(false);
    if (run.child.exitCode === null) process.kill(worker, 'SIGUSR1');
    const { code, stderr } = await run.ended;
    expect(stderr).not.toContain('Debugger listening');
    expect([138, 5]).toContain(code); // 5: Node without --disable-sigusr1 may die of it before our code runs
  });

  it.each([0, 5, 10, 20, 30, 40, 60, 80, 120, 200])(
    'leaves no debugger behind when it comes %i ms after the start of `node bin/mbridge.js`',
    async (ms) => {
      const port = 20_000 + (process.pid % 10_000) + ms;
      const child = spawn(process.execPath, [`--inspect-port=${port}`, BIN, 'dash', temporaryFolder()], {
        stdio: 'ignore',
      });
      const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
      await new Promise((resolve) => setTimeout(resolve, ms));
      child.kill('SIGUSR1');
      // By Node's default, by ours, or as whoever listens ends; it ends by nothing else.
      expect(['SIGUSR1', 138, 0]).toContain(await ended);
      expect(await listens(port)).toBe(false);
    },
  );

  it('leaves the debugger to whoever asks for it', async () => {
    const run = new Running([process.execPath, '--inspect=127.0.0.1:0', BIN, 'recipes']);
    const { code, stderr } = await run.ended;
    expect(stderr).toContain('Debugger listening');
    expect(code).toBe(0);
  });
});

describe('the executable script', () => {
  it.each([
    ['a plain shell', '', '0'],
    ['a shell that ignores hangups', "trap '' HUP; ", '1'],
  ])('sees what %s has ignored', async (_, trap, lowestDigit) => {
    const folder = temporaryFolder();
    // The script runs the node that is found first.
    const fake = join(folder, 'node');
    writeFileSync(fake, '#!/bin/sh\necho "$MBRIDGE_SIGNALS_IGNORED" "$@"\n', { mode: 0o755 });
    const run = new Running(['sh', '-c', `${trap}exec "${BIN}" recipes`], { PATH: `${folder}:${process.env['PATH']}` });
    const { stdout } = await run.ended;
    const [mask = '', option, script, command] = stdout.trim().split(' ');
    expect((Number.parseInt(mask.slice(-1), 16) & 1).toString()).toBe(lowestDigit);
    expect([option, script, command]).toEqual(['--inspect-port=192.0.2.1:65535', BIN, 'recipes']);
  });

  it('runs the command', async () => {
    const { stdout, code } = await new Running([BIN, '--version']).ended;
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
      version: string;
    };
    expect(stdout).toBe(`${version}\n`);
    expect(code).toBe(0);
  });
});

describe('a hangup that was ignored at the start', () => {
  /** A /proc of a process whose standard input has `flags`, and of a parent that ignores `mask`. */
  function processes(flags: string, mask: string): [self: string, parent: string] {
    const [self, parent] = [join(temporaryFolder(), 'self'), join(temporaryFolder(), 'parent')];
    mkdirSync(join(self, 'fdinfo'), { recursive: true });
    mkdirSync(parent);
    writeFileSync(join(self, 'fdinfo', '0'), `pos:\t0\nflags:\t${flags}\n`);
    writeFileSync(join(parent, 'status'), `SigBlk:\t0000000000000001\nSigIgn:\t${mask}\n`);
    return [self, parent];
  }
  const NONE = '0000000000001000';
  it.each<[string, Record<string, string>, string, string, boolean]>([
    ['nothing says so', {}, '0100000', NONE, false],
    ['the script has seen it', { MBRIDGE_SIGNALS_IGNORED: '0000000000000001' }, '0100000', NONE, true],
    ['the script has seen others', { MBRIDGE_SIGNALS_IGNORED: NONE, _: '/usr/bin/nohup' }, '0100001', NONE, false],
    ['a shell has started nohup', { _: '/usr/bin/nohup' }, '0100000', NONE, true],
    ['nohup has replaced the terminal', { _: '/bin/other' }, '0100001', NONE, true],
    ['a script under nohup is the parent', {}, '0100000', '0000000000001001', true],
    ['there is no /proc', {}, '', '', false],
  ])('%s', (_, env, flags, mask, expected) => {
    expect(hangupIgnored(env, ...processes(flags, mask))).toBe(expected);
  });
});

it.each<[string, string]>([
  [
    '--import file:///tsx/loader.mjs --require /tsx/preflight.cjs',
    '--import file:///tsx/loader.mjs --require /tsx/preflight.cjs',
  ],
  [
    '--import=tsx -r ./a.cjs -C dev --max-old-space-size=4096',
    '--import=tsx -r ./a.cjs -C dev --max-old-space-size=4096',
  ],
  ['--inspect --inspect-port 9230 --inspect-brk=0.0.0.0:1 --import=tsx', '--import=tsx'],
  ['--watch --watch-path src --test --no-warnings', '--no-warnings'],
  ['-e console.log(1) --input-type module --env-file .env', '--env-file .env'],
  ['', ''],
])('of the options %j a rank of the program gets %j', (given, passed) => {
  const split = (text: string): string[] => text.split(' ').filter((part) => part !== '');
  expect(programOptions(split(given))).toEqual(split(passed));
});

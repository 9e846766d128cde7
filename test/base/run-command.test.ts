import { expect, test } from 'vitest';
import { runCommand } from '../../src/base/run-command.js';

const sh = (script: string, options: Partial<Parameters<typeof runCommand>[2]> = {}) =>
  runCommand('sh', ['-c', script], { timeoutMs: 60_000, ...options });

test.each([
  ['echo out; echo bad >&2', undefined, 'out\n', 'bad\n'],
  ['echo out; exit 3', 'exit code 3', 'out\n', ''],
  ['kill -TERM $$', 'SIGTERM', '', ''],
  // Nobody waits for the end of what the command left behind in the background without its output.
  ['sleep 2 >/dev/null 2>&1 & echo out', undefined, 'out\n', ''],
])('%s', async (script, failure, stdout, stderr) => {
  expect(await sh(script)).toEqual({ failure, stdout, stderr });
});

test('a program that is not there, and one whose arguments the system does not take, are failures', async () => {
  expect(await runCommand('/nowhere/tool', [], { timeoutMs: 1000 })).toMatchObject({ failure: 'not found' });
  const tooLong = await runCommand('echo', ['x'.repeat(1 << 22)], { timeoutMs: 1000 });
  expect(tooLong.failure).toContain('E2BIG');
});

test('the time limit ends a command, whatever holds its output open', async () => {
  const begun = performance.now();
  const { failure, stdout } = await sh('echo out; sleep 5; true', { timeoutMs: 500 });
  expect(failure).toBe('no end after 0.5 s');
  expect(stdout).toBe('out\n');
  expect(performance.now() - begun).toBeLessThan(4000);
});

test('the environment is the given one alone, else that of this process', async () => {
  expect((await sh('echo "$A-$HOME"', { env: { PATH: process.env['PATH'], A: 'a', HOME: undefined } })).stdout).toBe(
    'a-\n',
  );
  expect((await sh('echo "$PATH"')).stdout).toBe(`${process.env['PATH']}\n`);
});

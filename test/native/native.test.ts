import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { BUILD, needsTestPrograms } from '../helpers/test-programs.js';

needsTestPrograms();
const program = join(BUILD, 'mbridge_native_tests');

/** Runs the native op tests with the kernels of one instruction set. */
async function run(isa: string, ...args: string[]): Promise<{ code: number; output: string }> {
  try {
    const env = { ...process.env, MBRIDGE_CPU_ISA: isa };
    const { stdout } = await promisify(execFile)(program, args, { env, maxBuffer: 2 ** 26 });
    return { code: 0, output: stdout };
  } catch (error) {
    const { code, stdout } = error as { code: number; stdout: string };
    return { code, output: stdout };
  }
}

/** Those of x86-64 that this machine has not are not tested; the ones it would choose always are. */
const unsupported = /open: MBRIDGE_CPU_ISA is \w+; this machine and build have up to/;

describe('every op of the CPU backend against float64, at 1, 2 and 3 threads', () => {
  it.each(['', 'base', 'v3', 'v4'])('kernels %j', async (isa) => {
    const { code, output } = await run(isa);
    if ((isa === 'v3' || isa === 'v4') && code === 4 && unsupported.test(output)) return;
    expect(output).toMatch(/\n[1-9]\d* cases, [1-9]\d{3,} checks, 0 failed\n$/);
    expect(code).toBe(0);
  });

  it('fails for a case that does not exist, kernels that do not exist, and a backend that does not load', async () => {
    expect(await run('', '--only', 'no such op')).toMatchObject({ code: 1 });
    expect(await run('v9')).toMatchObject({ code: 4, output: expect.stringMatching(unsupported) as string });
    const missing = await run('', '--backend', '/nowhere/libmbridge_cuda.so');
    expect(missing).toMatchObject({ code: 4, output: expect.stringContaining('cannot load /nowhere') as string });
  });
});

import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { findCudaEngine } from '../../src/engine/find.js';
import { BUILD, needsTestPrograms } from '../helpers/test-programs.js';

needsTestPrograms();
const TESTS = join(BUILD, 'mbridge_native_tests');
const PEER_TESTS = join(BUILD, 'mbridge_peer_tests');

async function nativeTests(...before: string[]): Promise<void> {
  const [program = '', ...args] = [...before, TESTS, '--backend', findCudaEngine().path];
  const { exitCode, all } = await execa(program, args, { reject: false, all: true });
  expect(exitCode, all.slice(-4000)).toBe(0);
  expect(all).toMatch(/^\d+ cases, \d+ checks, 0 failed$/m);
}

test('every op agrees with float64, and with itself a second time', () => nativeTests());

test('kernels over the memory of a group agree with float64, in groups of 2, 4 and 8 processes', async () => {
  const { exitCode, all } = await execa(PEER_TESTS, { reject: false, all: true });
  expect(exitCode, all.slice(-4000)).toBe(0);
  expect(all.match(/ 0 failed$/gm)).toHaveLength(3);
});

const sanitizer = (await execa('compute-sanitizer', ['--version'], { reject: false })).exitCode === 0;

describe.skipIf(!sanitizer).each(['memcheck', 'racecheck'])('under compute-sanitizer %s', (tool) => {
  const sanitize = ['compute-sanitizer', '--tool', tool, '--error-exitcode', '9'];

  test('every op is clean', () => nativeTests(...sanitize));

  test('kernels over the memory of a group of 2 are clean', async () => {
    const [program = '', ...args] = [...sanitize, '--target-processes', 'all', PEER_TESTS, '2'];
    const { exitCode, all } = await execa(program, args, { reject: false, all: true });
    expect(exitCode, all.slice(-4000)).toBe(0);
  });
});

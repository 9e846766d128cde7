import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { BUILD, needsTestPrograms } from '../../helpers/test-programs.js';

needsTestPrograms();
const program = join(BUILD, 'mbridge_shm_tests');

/** Output of the native tests whose names begin with `part`; rejects, with what failed, when one failed or none exists. */
async function nativeTests(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(program, args);
  return stdout;
}

// The tests themselves are forked processes, in native/tests/shm_*.cc. Parts run by turns: they want the cores.
describe('collectives between processes', () => {
  const parts = [
    ['', 'collectives', 9],
    ['', 'p2p', 14],
    ['', 'failure', 13],
    ['', 'crowded', 1],
    ['', 'memory', 5],
    // The same collectives against the same reference, bit by bit, as between nodes.
    ['--tcp', 'collectives', 9],
    ['--tcp', 'p2p', 12],
    ['--tcp', 'failure', 11],
    ['--tcp', 'tcp', 4],
  ] as const;
  it.each(parts)(
    '%s %s: %i native tests',
    async (over, part, count) => {
      const output = await nativeTests(...(over === '' ? [] : [over]), part);
      const [passed, failed, skipped] = /(\d+) passed, (\d+) failed, (\d+) skipped\n$/.exec(output)?.slice(1) ?? [];
      expect(Number(passed) + Number(skipped), output).toBe(count);
      expect(failed).toBe('0');
      if (part !== 'memory') expect(skipped, output).toBe('0');
    },
    60_000,
  );
});

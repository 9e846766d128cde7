import { join } from 'node:path';
import { expect, test } from 'vitest';
import { BIN } from './mbridge.js';
import { Running, temporaryFolder } from '../job/launch/processes.js';

/** `pretrain` of two ranks under a limit that the shell sets. */
function limited(limit: string, args = '', redirect = ''): Running {
  const folder = temporaryFolder();
  const run = `"$0" "$1" pretrain qwen3-tiny --device cpu --nproc 2 --tp-size 2 train.train_iters=2 --log-dir "$2" ${args}`;
  return new Running([
    '/bin/bash',
    '-c',
    `${limit} exec ${run} ${redirect}`,
    process.execPath,
    BIN,
    join(folder, 'run'),
  ]);
}

test.each<[name: string, run: () => Running, code: number, message: RegExp]>([
  ['few files, before the program is loaded', () => limited('ulimit -n 24;'), 4, /too many open files.*\n.*ulimit/],
  ['few files', () => limited('ulimit -n 48;'), 4, /too many open files.*\n.*ulimit/],
  ['small files', () => limited('ulimit -f 100;', 'checkpoint.save="$2"/ck'), 4, /File too large\)[^/]*\n.*ulimit -f/],
  ['little memory', () => limited('ulimit -v 1000000;'), 4, /\n.*ulimit/],
  ['a full disk for the results', () => limited('', '', '>/dev/full'), 7, /MB_STDOUT.*ENOSPC/],
])('%s', async (_, run, code, message) => {
  const outcome = await run().ended;
  expect(outcome.stderr).toMatch(message);
  expect(outcome.stderr).not.toMatch(/MB_INTERNAL/);
  expect(outcome.stderr).not.toMatch(/^\s+at /m);
  expect(outcome.code).toBe(code);
});

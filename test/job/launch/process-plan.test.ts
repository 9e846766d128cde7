import { expect, it } from 'vitest';
import { planProcesses } from '../../../src/job/launch/process-plan.js';

it('plans one process a rank, as data', () => {
  const plan = planProcesses({ nproc: 2, device: 'cpu', cores: 5 }, '/runs/a');
  expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
  const [program, option, script, ...argv] = plan.ranks[1]?.command ?? [];
  expect(program).toBe(process.execPath);
  expect(option).toMatch(/^--(disable-sigusr1|inspect-port=192\.0\.2\.1:\d+)$/); // no debugger from the first moment on
  expect(script).toMatch(/\/dist\/src\/job\/worker\/main\.js$/);
  expect(argv).toEqual(['--rank', '1']);
  expect({ ...plan, ranks: plan.ranks.map(({ env, files }) => ({ env, files }))[1] }).toMatchInlineSnapshot(`
    {
      "cores": 5,
      "device": "cpu",
      "nproc": 2,
      "ranks": {
        "env": {
          "LOCAL_RANK": "1",
          "LOCAL_WORLD_SIZE": "2",
          "MASTER_ADDR": "127.0.0.1",
          "MBRIDGE_CONSOLE_LEVEL": "40",
          "MBRIDGE_RUN_DIR": "/runs/a",
          "MBRIDGE_THREADS": "2",
          "RANK": "1",
          "WORLD_SIZE": "2",
        },
        "files": {
          "log": "/runs/a/rank-1/log.ndjson",
          "stderr": "/runs/a/rank-1/stderr.log",
          "stdout": "/runs/a/rank-1/stdout.log",
        },
      },
      "runDir": "/runs/a",
      "threadsPerRank": 2,
    }
  `);
});

it.each([
  [1, 2, 2],
  [2, 2, 1],
  [8, 2, 1],
  [3, 16, 5],
])('%i processes on %i cores have %i threads each', (nproc, cores, threads) => {
  const plan = planProcesses({ nproc, cores, device: 'cpu' }, '/runs/a');
  expect(plan.threadsPerRank).toBe(threads);
  expect(plan.ranks.map(({ env }) => env['MBRIDGE_THREADS'])).toEqual(
    Array.from({ length: nproc }, () => String(threads)),
  );
});

it.each([
  [undefined, ['30', '40', '40']],
  [
    [1, 2],
    ['40', '30', '30'],
  ],
  ['all', ['30', '30', '30']],
] as const)('console ranks %j show from levels %j', (consoleRanks, levels) => {
  const shown = consoleRanks === undefined ? {} : { consoleRanks };
  const plan = planProcesses({ nproc: 3, cores: 2, device: 'cpu', ...shown }, '/runs/a');
  expect(plan.ranks.map(({ env }) => env['MBRIDGE_CONSOLE_LEVEL'])).toEqual(levels);
});

it.each([0, -1, 1.5, NaN])('refuses %s processes', (nproc) => {
  expect(() => planProcesses({ nproc, device: 'cpu' }, '/runs/a')).toThrow(/--nproc is .* positive integer/);
});

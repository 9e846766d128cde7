import { describe, expect, it } from 'vitest';
import { detectStarter, refuseSeveralLaunchers } from '../../../src/job/shared/starter.js';
import { parseEnvironment } from '../../../src/job/worker/environment.js';
import { expandHosts } from '../../../src/job/worker/slurm-hosts.js';

type Env = Record<string, string>;

const TORCHRUN: Env = {
  RANK: '5',
  WORLD_SIZE: '8',
  LOCAL_RANK: '1',
  LOCAL_WORLD_SIZE: '4',
  MASTER_ADDR: 'node-a',
  MASTER_PORT: '29400',
  TORCHELASTIC_RUN_ID: 'job-7',
  TORCHELASTIC_RESTART_COUNT: '2',
  MBRIDGE_TOKEN: 'abc',
};
const ONE_NODE: Env = {
  ...TORCHRUN,
  LOCAL_RANK: '5',
  LOCAL_WORLD_SIZE: '8',
  TORCHELASTIC_RUN_ID: 'none',
  MBRIDGE_TOKEN: '',
};
const OURS: Env = { ...ONE_NODE, MBRIDGE_STORE: '127.0.0.1:4567', MBRIDGE_TOKEN: 'abc' };
const SLURM: Env = {
  SLURM_PROCID: '6',
  SLURM_NTASKS: '7',
  SLURM_LOCALID: '2',
  SLURM_NODEID: '1',
  SLURM_STEP_TASKS_PER_NODE: '4,3',
  SLURM_STEP_NODELIST: 'gpu[07-09,12]-ib,other',
  SLURM_JOB_ID: '123456',
  MBRIDGE_TOKEN: 'abc',
};
const OPENMPI: Env = {
  OMPI_COMM_WORLD_RANK: '3',
  OMPI_COMM_WORLD_SIZE: '4',
  OMPI_COMM_WORLD_LOCAL_RANK: '3',
  OMPI_COMM_WORLD_LOCAL_SIZE: '4',
};
/** What the training operator sets in the second pod of two, each with one rank. */
const PYTORCHJOB: Env = {
  RANK: '1',
  WORLD_SIZE: '2',
  MASTER_ADDR: 'job-master-0',
  MASTER_PORT: '23456',
  PET_NNODES: '2',
  PET_NODE_RANK: '1',
  PET_NPROC_PER_NODE: '1',
  PET_MASTER_ADDR: 'job-master-0',
  PET_MASTER_PORT: '23456',
  MBRIDGE_TOKEN: 'abc',
};
/** The same with eight ranks in each: RANK is the pod's. */
const EIGHT_A_POD: Env = { ...PYTORCHJOB, WORLD_SIZE: '16', PET_NPROC_PER_NODE: '8' };
const ONLY_POD: Env = { ...EIGHT_A_POD, RANK: '0', WORLD_SIZE: '8', PET_NNODES: '1', PET_NODE_RANK: '0' };
/** What mpiexec of MPICH and of Intel MPI sets. */
const MPICH: Env = { PMI_RANK: '1', PMI_SIZE: '2', MPI_LOCALRANKID: '1', MPI_LOCALNRANKS: '2' };

describe('environments that are understood', () => {
  const CASES: [name: string, env: Env, expected: object][] = [
    [
      'our launcher',
      OURS,
      { starter: 'mbridge', rank: 5, token: 'abc', store: { served: 'by-launcher', host: '127.0.0.1', port: 4567 } },
    ],
    [
      'torchrun on two nodes',
      TORCHRUN,
      {
        starter: 'torchrun',
        rank: 5,
        localRank: 1,
        worldSize: 8,
        localWorldSize: 4,
        store: { served: 'by-rank-0', host: 'node-a', port: 29401, job: null },
        token: 'abc',
      },
    ],
    ['torchrun on one node', ONE_NODE, { store: { served: 'by-rank-0', job: 'torchrun/29401/none/2/' }, token: '' }],
    ['a token of the user', { ...TORCHRUN, MBRIDGE_TOKEN: 'mine' }, { token: 'mine' }],
    [
      'a port of the user',
      { ...TORCHRUN, MBRIDGE_STORE_PORT: '5555' },
      { store: { served: 'by-rank-0', host: 'node-a', port: 5555 } },
    ],
    ['threads of the user', { ...OURS, MBRIDGE_THREADS: '3' }, { threads: 3 }],
    ['threads left open', { ...OURS, MBRIDGE_THREADS: '' }, { threads: null }],
    ['one rank', { RANK: '0', WORLD_SIZE: '1' }, { starter: 'ranks', localRank: 0, localWorldSize: 1 }],
    [
      'Slurm',
      SLURM,
      {
        starter: 'slurm',
        rank: 6,
        localRank: 2,
        worldSize: 7,
        localWorldSize: 3,
        store: { served: 'by-rank-0', host: 'gpu07-ib', port: 20000 + (123456 % 20000) + 1 },
      },
    ],
    ['Slurm, equal nodes', { ...SLURM, SLURM_NTASKS: '8', SLURM_STEP_TASKS_PER_NODE: '4(x2)' }, { localWorldSize: 4 }],
    [
      'Slurm, one node',
      { ...SLURM, SLURM_NODEID: '0', SLURM_STEP_TASKS_PER_NODE: '7' },
      { store: { job: 'slurm/23457/123456//abc' } },
    ],
    [
      'Open MPI',
      OPENMPI,
      { starter: 'openmpi', rank: 3, localRank: 3, localWorldSize: 4, store: { job: 'openmpi/29501///' } },
    ],
    ['MPICH', MPICH, { starter: 'mpich', rank: 1, worldSize: 2, localRank: 1, localWorldSize: 2 }],
    [
      'Cray',
      { PMI_RANK: '1', PMI_SIZE: '2', PMI_LOCAL_RANK: '1', PMI_LOCAL_SIZE: '2' },
      { starter: 'mpich', rank: 1, localRank: 1, localWorldSize: 2 },
    ],
    [
      'MVAPICH',
      {
        MV2_COMM_WORLD_RANK: '1',
        MV2_COMM_WORLD_SIZE: '2',
        MV2_COMM_WORLD_LOCAL_RANK: '1',
        MV2_COMM_WORLD_LOCAL_SIZE: '2',
      },
      { starter: 'mvapich', rank: 1, localWorldSize: 2 },
    ],
    ['mpiexec in a Slurm job', { ...SLURM, ...MPICH }, { starter: 'mpich', rank: 1, worldSize: 2 }],
    ["srun that speaks MPI's protocol", { ...SLURM, PMI_RANK: '6', PMI_SIZE: '7' }, { starter: 'slurm', rank: 6 }],
    ['srun beside an exported WORLD_SIZE', { ...SLURM, WORLD_SIZE: '16' }, { starter: 'slurm', rank: 6, worldSize: 7 }],
    [
      'a step of fewer tasks than its job',
      { ...SLURM, SLURM_NTASKS: '64', SLURM_STEP_NUM_TASKS: '7' },
      { worldSize: 7 },
    ],
    ['an IPv6 address', { ...TORCHRUN, MASTER_ADDR: 'fd00::1:2' }, { store: { host: 'fd00::1:2', port: 29401 } }],
    ['an IPv6 address in brackets', { ...TORCHRUN, MASTER_ADDR: '[fd00::1:2]' }, { store: { host: 'fd00::1:2' } }],
    ["our launcher's store by IPv6", { ...OURS, MBRIDGE_STORE: '[::1]:4567' }, { store: { host: '::1', port: 4567 } }],
    [
      'Slurm, hosts of several bracket groups',
      { ...SLURM, SLURM_STEP_NODELIST: 'rack[0-1]node[0-3]' },
      {
        store: { host: 'rack0node0' },
        hosts: [...Array<string>(4).fill('rack0node0'), ...Array<string>(3).fill('rack0node1')],
      },
    ],
    [
      'a batch script without srun',
      { SLURM_PROCID: '0', SLURM_NTASKS: '4', SLURM_LOCALID: '0', SLURM_NODEID: '0', SLURM_TASKS_PER_NODE: '4' },
      { starter: 'slurm', rank: 0, hint: expect.stringMatching(/srun.*--nproc/) as string },
    ],
    [
      'a pod a rank, of a PyTorchJob',
      PYTORCHJOB,
      {
        starter: 'ranks',
        rank: 1,
        worldSize: 2,
        localRank: 0,
        localWorldSize: 1,
        store: { served: 'by-rank-0', host: 'job-master-0', port: 23457, job: null },
      },
    ],
    ['torchrun in a pod of a PyTorchJob', { ...PYTORCHJOB, ...TORCHRUN }, { starter: 'torchrun', localRank: 1 }],
    [
      'a pod a rank, of a JobSet',
      { JOB_COMPLETION_INDEX: '3', WORLD_SIZE: '4', MASTER_ADDR: 'set-node-0-0.set', MBRIDGE_TOKEN: 'abc' },
      { starter: 'indexed-job', rank: 3, worldSize: 4, localRank: 0, localWorldSize: 1 },
    ],
    ["RANK wins over Slurm's", { ...SLURM, ...ONE_NODE }, { starter: 'torchrun', rank: 5, worldSize: 8 }],
  ];
  it.each(CASES)('%s', (_, env, expected) => {
    expect(parseEnvironment(env)).toMatchObject(expected);
  });

  const jobOf = (env: Env): string | null => parseEnvironment(env).store.job;
  it.each<[string, Env, Env]>([
    ['ports', ONE_NODE, { MASTER_PORT: '29402' }],
    ['restarts', ONE_NODE, { TORCHELASTIC_RESTART_COUNT: '3' }],
    ['steps of Slurm', { ...SLURM, SLURM_NODEID: '0', SLURM_STEP_TASKS_PER_NODE: '7' }, { SLURM_STEP_ID: '1' }],
    ['jobs of Open MPI', OPENMPI, { PMIX_NAMESPACE: 'prterun-1@1' }],
    ['tokens', ONE_NODE, { MBRIDGE_TOKEN: 'another' }],
  ])('runs of one user on one machine meet at sockets of their own: %s', (_, env, change) => {
    expect(jobOf({ ...env, ...change })).not.toBe(jobOf(env));
    expect(jobOf({ ...env, ...change, LOCAL_RANK: '0', SLURM_TASK_PID: '7' })).toBe(jobOf({ ...env, ...change }));
  });
});

describe('environments that are refused', () => {
  const without = (env: Env, name: string): Env =>
    Object.fromEntries(Object.entries(env).filter(([key]) => key !== name));
  const CASES: [name: string, env: Env, problems: string[]][] = [
    ['nothing', {}, ['RANK and WORLD_SIZE are not set']],
    ['no WORLD_SIZE', without(ONE_NODE, 'WORLD_SIZE'), ['WORLD_SIZE is not set']],
    ['a rank out of range', { ...ONE_NODE, RANK: '8' }, ["RANK is '8', but must be an integer from 0 to 7"]],
    ['a negative rank', { ...ONE_NODE, RANK: '-1' }, ["RANK is '-1', but must be an integer from 0 to 7"]],
    [
      'not a number',
      { ...ONE_NODE, WORLD_SIZE: '8.5', RANK: '0', LOCAL_RANK: '0', LOCAL_WORLD_SIZE: '1' },
      [expect.stringMatching(/^WORLD_SIZE is '8.5'/) as string],
    ],
    [
      'a local rank out of range',
      { ...ONE_NODE, LOCAL_RANK: '8' },
      ["LOCAL_RANK is '8', but must be an integer from 0 to 7"],
    ],
    ['no LOCAL_RANK', without(ONE_NODE, 'LOCAL_RANK'), ['LOCAL_RANK is not set']],
    [
      'more local ranks than ranks',
      { ...ONE_NODE, LOCAL_WORLD_SIZE: '9' },
      [expect.stringMatching(/^LOCAL_WORLD_SIZE is '9'/) as string],
    ],
    [
      'no MASTER_ADDR over nodes',
      without(TORCHRUN, 'MASTER_ADDR'),
      ['MASTER_ADDR is not set: it names the node of rank 0'],
    ],
    [
      'a bad port',
      { ...TORCHRUN, MASTER_PORT: 'http' },
      ["MASTER_PORT is 'http', but must be an integer from 1 to 65534"],
    ],
    [
      'threads that are no number',
      { ...TORCHRUN, MBRIDGE_THREADS: 'all' },
      ["MBRIDGE_THREADS is 'all', but must be an integer from 1 to 65536"],
    ],
    [
      'no secret over nodes: the run id is none, all users of a node can read it',
      without(TORCHRUN, 'MBRIDGE_TOKEN'),
      [expect.stringMatching(/^MBRIDGE_TOKEN is not set/) as string],
    ],
    [
      'no secret over Slurm nodes',
      without(SLURM, 'MBRIDGE_TOKEN'),
      [expect.stringMatching(/^MBRIDGE_TOKEN is not set/) as string],
    ],
    [
      'a Slurm node without tasks',
      { ...SLURM, SLURM_NODEID: '2' },
      [expect.stringMatching(/4,3.* no entry for SLURM_NODEID 2/) as string],
    ],
    [
      'one process for the eight ranks of a pod',
      EIGHT_A_POD,
      [expect.stringMatching(/one process for the ranks of this pod \(PET_NPROC_PER_NODE=8, 2 pods\)/) as string],
    ],
    [
      'one process for all GPUs of a pod',
      { ...PYTORCHJOB, PET_NPROC_PER_NODE: 'auto' },
      [expect.stringMatching(/PET_NPROC_PER_NODE=auto/) as string],
    ],
    [
      'a bad store address',
      { ...OURS, MBRIDGE_STORE: 'localhost' },
      [expect.stringMatching(/^MBRIDGE_STORE is/) as string],
    ],
  ];
  it.each(CASES)('%s', (_, env, problems) => {
    let found: unknown;
    try {
      parseEnvironment(env);
    } catch (error) {
      found = error;
    }
    expect(found).toMatchObject({ code: 'MB_WORKER_ENVIRONMENT', exitCode: 4, details: { problems } });
  });
});

const STARTERS: [name: string, env: Env, starter: string | undefined][] = [
  ['a shell', {}, undefined],
  ['our launcher', OURS, 'mbridge'],
  ['torchrun', TORCHRUN, 'torchrun'],
  ['RANK and WORLD_SIZE', { RANK: '0', WORLD_SIZE: '2' }, 'ranks'],
  ['srun', SLURM, 'slurm'],
  ['srun of one task', { ...SLURM, SLURM_NTASKS: '1' }, undefined],
  ['mpirun', OPENMPI, 'openmpi'],
  ['a Slurm batch script', { SLURM_NTASKS: '8' }, undefined],
  ['mpiexec', MPICH, 'mpich'],
  ['mpiexec of one process', { ...MPICH, PMI_RANK: '0', PMI_SIZE: '1' }, undefined],
  ['an exported WORLD_SIZE', { WORLD_SIZE: '8' }, 'ranks'],
  ['a pod of a PyTorchJob', PYTORCHJOB, 'ranks'],
  ['the only pod of a PyTorchJob, whose ranks a launcher starts', ONLY_POD, undefined],
  ['an indexed Job that does not say how many pods it has', { JOB_COMPLETION_INDEX: '1' }, undefined],
];
it.each(STARTERS)('the starter is known: %s', (_, env, starter) => {
  expect(detectStarter(env)).toBe(starter);
});

describe('a second level of processes', () => {
  const CASES: [name: string, env: Env, message: RegExp | null][] = [
    ['in a shell', {}, null],
    ['in a worker of ours', OURS, null],
    ['under torchrun', TORCHRUN, /process 5 of 8 that torchrun, or RANK and WORLD_SIZE started \(RANK, WORLD_SIZE\)/],
    ['under torchrun with one process', { ...ONE_NODE, WORLD_SIZE: '1', RANK: '0' }, null],
    ['under srun', SLURM, /process 6 of 7 that Slurm started/],
    ['under srun of one task', { ...SLURM, SLURM_NTASKS: '1' }, null],
    ['in a Slurm batch script', { SLURM_PROCID: '0', SLURM_NTASKS: '4' }, null],
    ['under mpirun', OPENMPI, /process 3 of 4 that Open MPI started/],
    ['under mpiexec', MPICH, /process 1 of 2 that MPICH or Intel MPI started/],
    ['with an exported WORLD_SIZE', { WORLD_SIZE: '8' }, null],
    ['in a pod of a PyTorchJob', EIGHT_A_POD, /process 1 of 16/],
    ['in the only pod of a PyTorchJob', ONLY_POD, null],
    ['under a starter that says no size', { PMIX_RANK: '0' }, /PMIx launcher started this process \(PMIX_RANK=0\)/],
    ['under prterun of one process', { PMIX_RANK: '0', OMPI_COMM_WORLD_SIZE: '1' }, null],
  ];
  it.each(CASES)('%s', (_, env, message) => {
    const start = (): void => refuseSeveralLaunchers(env);
    if (message === null) expect(start).not.toThrow();
    else
      expect(start).toThrow(expect.objectContaining({ exitCode: 2, message: expect.stringMatching(message) }) as Error);
  });
});

const HOSTS: [list: string, hosts: string[]][] = [
  ['a[1-3,5],b[01-02]x[1-2]', ['a1', 'a2', 'a3', 'a5', 'b01x1', 'b01x2', 'b02x1', 'b02x2']],
  ['rack[0-1]_blade[0-1]', ['rack0_blade0', 'rack0_blade1', 'rack1_blade0', 'rack1_blade1']],
  ['nodeA,nodeB[001,003],nodeC', ['nodeA', 'nodeB001', 'nodeB003', 'nodeC']],
  ['n[07-09,12]-ib', ['n07-ib', 'n08-ib', 'n09-ib', 'n12-ib']],
  ['n[098-101]', ['n098', 'n099', 'n100', 'n101']],
  ['login', ['login']],
  ['', []],
  ['n[1-2', []],
  ['n[1-99999999]m[1-9]', []],
];
it.each(HOSTS)('the node list %s', (list, hosts) => {
  expect(expandHosts(list)).toEqual(hosts);
});

import { MbridgeError } from '../../base/errors.js';
import { ENV } from '../shared/messages.js';

/** Who started this process: our launcher, or one of those whose environment is understood as well. */
export type Starter = 'mbridge' | 'torchrun' | 'openmpi' | 'slurm' | 'ranks';

export interface WorkerEnvironment {
  starter: Starter;
  rank: number;
  localRank: number;
  worldSize: number;
  localWorldSize: number;
  /** The rendezvous store: who serves it, and where. Rank 0 serves it where no launcher of ours does. */
  store: {
    served: 'by-launcher' | 'by-rank-0';
    host: string;
    port: number;
    /** On one node: what sets this job apart from others of this user; names the socket at which its ranks meet. */
    job: string | null;
  };
  /** CPU threads of this rank; null leaves them to the worker. */
  threads: number | null;
  /** Secret shared by the ranks of this run; empty where they meet at a socket that is this user's alone. */
  token: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Where one starter writes the four numbers. */
interface RankVariables {
  rank: string;
  worldSize: string;
  localRank: string;
  localWorldSize: string;
}

const TORCH: RankVariables = {
  rank: 'RANK',
  worldSize: 'WORLD_SIZE',
  localRank: 'LOCAL_RANK',
  localWorldSize: 'LOCAL_WORLD_SIZE',
};
const OPENMPI: RankVariables = {
  rank: 'OMPI_COMM_WORLD_RANK',
  worldSize: 'OMPI_COMM_WORLD_SIZE',
  localRank: 'OMPI_COMM_WORLD_LOCAL_RANK',
  localWorldSize: 'OMPI_COMM_WORLD_LOCAL_SIZE',
};
const SLURM: RankVariables = {
  rank: 'SLURM_PROCID',
  worldSize: 'SLURM_NTASKS',
  localRank: 'SLURM_LOCALID',
  localWorldSize: 'SLURM_STEP_TASKS_PER_NODE',
};

const DEFAULT_MASTER_PORT = 29_500;

/**
 * Who started this process as one of several, or undefined if nobody did. A single Slurm or MPI task is no worker: it is
 * a shell in which the user may start a launcher.
 */
export function detectStarter(env: Env): Starter | undefined {
  if (env['RANK'] !== undefined || env['WORLD_SIZE'] !== undefined) {
    if (env[ENV.store] !== undefined) return 'mbridge';
    return env['TORCHELASTIC_RUN_ID'] === undefined ? 'ranks' : 'torchrun';
  }
  if (Number(env[OPENMPI.worldSize] ?? 0) > 1) return 'openmpi';
  if (env[SLURM.rank] !== undefined && Number(env[SLURM.worldSize] ?? 0) > 1) return 'slurm';
  return undefined;
}

/** Reads ranks and addresses from the environment. Fails with MB_WORKER_ENVIRONMENT (exit 4) that lists every problem. */
export function parseEnvironment(env: Env): WorkerEnvironment {
  const problems: string[] = [];
  const starter = detectStarter(env);
  if (starter === undefined) throw environmentError(['RANK and WORLD_SIZE are not set']);
  const names = starter === 'openmpi' ? OPENMPI : starter === 'slurm' ? SLURM : TORCH;

  const worldSize = readInteger(env, names.worldSize, 1, 1_000_000, problems);
  const rank = readInteger(env, names.rank, 0, worldSize - 1, problems);
  const alone = worldSize === 1;
  const localWorldSize =
    starter === 'slurm'
      ? slurmLocalSize(env, problems)
      : readInteger(env, names.localWorldSize, 1, worldSize, problems, alone ? 1 : undefined);
  const localRank = readInteger(env, names.localRank, 0, localWorldSize - 1, problems, alone ? 0 : undefined);
  const oneNode = !(localWorldSize < worldSize); // also where either is unknown: one problem is not reported twice

  const threads = env[ENV.threads] ? readInteger(env, ENV.threads, 1, 65_536, problems) : null;
  const store = env[ENV.store];
  const where =
    store === undefined
      ? { served: 'by-rank-0' as const, ...storeAddress(env, starter, oneNode, problems) }
      : { served: 'by-launcher' as const, ...splitAddress(store, problems) };
  const token = env[ENV.token] ?? '';
  const { served, port } = where;
  const job = served === 'by-rank-0' && oneNode ? jobName(env, starter, port) : null;
  if (token === '' && job === null) {
    problems.push(`${ENV.token} is not set: give every rank the same random text (openssl rand -hex 16)`);
  }
  if (problems.length > 0) throw environmentError(problems);
  return { starter, rank, localRank, worldSize, localWorldSize, store: { ...where, job }, threads, token };
}

function storeAddress(
  env: Env,
  starter: Starter,
  oneNode: boolean,
  problems: string[],
): { host: string; port: number } {
  const fallbackPort = starter === 'slurm' ? slurmPort(env) : DEFAULT_MASTER_PORT;
  const masterPort = readInteger(env, 'MASTER_PORT', 1, 65_534, problems, fallbackPort);
  // torchrun's own store listens on MASTER_PORT, so ours takes the next one.
  const port = readInteger(env, ENV.storePort, 1, 65_535, problems, masterPort + 1);
  if (oneNode) return { host: '127.0.0.1', port };
  const host = env['MASTER_ADDR'] ?? (starter === 'slurm' ? firstHost(env['SLURM_STEP_NODELIST'] ?? '') : undefined);
  if (host === undefined || host === '') problems.push('MASTER_ADDR is not set: it names the node of rank 0');
  return { host: host ?? '', port };
}

function splitAddress(address: string, problems: string[]): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  const port = readInteger({ [ENV.store]: address.slice(colon + 1) }, ENV.store, 1, 65_535, problems);
  return { host: address.slice(0, Math.max(0, colon)), port };
}

/** Variables with which starters set their jobs apart. They are no secrets: other users see them in lists of processes and jobs. */
const JOB_VARIABLES: Partial<Record<Starter, readonly string[]>> = {
  torchrun: ['TORCHELASTIC_RUN_ID', 'TORCHELASTIC_RESTART_COUNT'],
  openmpi: ['PMIX_NAMESPACE', 'OMPI_MCA_ess_base_jobid'],
  slurm: ['SLURM_JOB_ID', 'SLURM_STEP_ID'],
};

function jobName(env: Env, starter: Starter, port: number): string {
  const named = (JOB_VARIABLES[starter] ?? []).map((name) => env[name] ?? '');
  return [starter, port, ...named, env[ENV.token] ?? ''].join('/');
}

/** Slurm writes tasks per node as `4(x2),3`: 4, 4, 3. */
function slurmLocalSize(env: Env, problems: string[]): number {
  const text = env['SLURM_STEP_TASKS_PER_NODE'] ?? env['SLURM_TASKS_PER_NODE'];
  const node = Number(env['SLURM_NODEID'] ?? 0);
  const sizes = (text ?? '').split(',').flatMap((part) => {
    const match = /^(\d+)(?:\(x(\d+)\))?$/.exec(part.trim());
    return match === null ? [] : Array.from({ length: Number(match[2] ?? 1) }, () => Number(match[1]));
  });
  const size = sizes[node];
  if (size === undefined) {
    problems.push(`SLURM_STEP_TASKS_PER_NODE (${text ?? 'not set'}) has no entry for SLURM_NODEID ${node}`);
  }
  return size ?? NaN;
}

/** The same on every task of a job, and seldom that of another job. */
function slurmPort(env: Env): number {
  return 20_000 + (Number(env['SLURM_JOB_ID'] ?? 0) % 20_000);
}

/** First name of a Slurm node list: `gpu[07-09,12]` is gpu07. */
function firstHost(list: string): string {
  const match = /^([^[,]*)(?:\[(\w+)[^\]]*\]([^,[]*))?/.exec(list);
  return match === null ? '' : `${match[1] ?? ''}${match[2] ?? ''}${match[3] ?? ''}`;
}

/** NaN, and a problem, where it is no integer from `least` to `most`; a `most` of NaN is no limit. */
function readInteger(
  env: Env,
  name: string,
  least: number,
  most: number,
  problems: string[],
  fallback?: number,
): number {
  const text = env[name];
  if (text === undefined || text === '') {
    if (fallback === undefined) problems.push(`${name} is not set`);
    return fallback ?? NaN;
  }
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && !(value > most)) return value;
  const range = Number.isNaN(most) ? `of at least ${least}` : `from ${least} to ${most}`;
  problems.push(`${name} is '${text}', but must be an integer ${range}`);
  return NaN;
}

function environmentError(problems: string[]): MbridgeError {
  return new MbridgeError('environment', 'MB_WORKER_ENVIRONMENT', `this worker's environment: ${problems.join('; ')}`, {
    hint: 'start workers with `mbridge pretrain --nproc N`, torchrun, srun or mpirun, or set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT',
    details: { problems },
  });
}

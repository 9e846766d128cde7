import { MbridgeError } from '../../base/errors.js';
import { ENV } from '../shared/messages.js';
import { podOf, startsRanks } from '../shared/pod.js';
import { detectStarter, firstSet, isSlurmStep, variablesOf, type Env, type Starter } from '../shared/starter.js';
import { expandHosts, hostsOfRanks, parseTasksPerNode } from './slurm-hosts.js';

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
  /** Where the ranks are on several nodes: which one this is on, equal for ranks of one node, and MASTER_ADDR. */
  node: { name: string; masterAddr: string } | null;
  /** CPU threads of this rank; null leaves them to the worker. */
  threads: number | null;
  /** Secret shared by the ranks of this run; empty where they meet at a socket that is this user's alone. */
  token: string;
  /** Where each rank runs, as far as the starter says; for messages. */
  hosts: readonly string[];
  /** What the user may have forgotten, if ranks do not come. */
  hint?: string;
}

const DEFAULT_MASTER_PORT = 29_500;

/** Reads ranks and addresses from the environment. Fails with MB_WORKER_ENVIRONMENT (exit 4) that lists every problem. */
export function parseEnvironment(env: Env): WorkerEnvironment {
  const problems: string[] = [];
  const starter = detectStarter(env);
  if (starter === undefined) throw environmentError(['RANK and WORLD_SIZE are not set'], 'nobody');
  const names = variablesOf(starter);
  const pod = podOf(env);
  if (pod !== undefined && startsRanks(pod)) throw podError(pod.nodes, pod.ranks);
  const read = (
    which: 'rank' | 'worldSize' | 'localRank' | 'localWorldSize',
    least: number,
    most: number,
    or?: number,
  ) => readInteger(env, firstSet(env, names[which]).name, least, most, problems, or);

  const worldSize = read('worldSize', 1, 1_000_000);
  const rank = read('rank', 0, worldSize - 1);
  const alone = worldSize === 1 || pod !== undefined || starter === 'indexed-job';
  const localWorldSize =
    starter === 'slurm' ? slurmLocalSize(env, problems) : read('localWorldSize', 1, worldSize, alone ? 1 : undefined);
  const localRank = read('localRank', 0, localWorldSize - 1, alone ? 0 : undefined);
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
  if (problems.length > 0) throw environmentError(problems, names.title);
  const hint =
    starter === 'slurm' && !isSlurmStep(env)
      ? { hint: 'Slurm has started this script alone: start the ranks with srun, or with --nproc' }
      : {};
  const hosts = starter === 'slurm' ? hostsOfRanks(nodeList(env), tasksPerNode(env)) : [];
  const shape = { starter, rank, localRank, worldSize, localWorldSize };
  const node = oneNode ? null : { name: nodeName(env, rank - localRank), masterAddr: env['MASTER_ADDR'] ?? where.host };
  return { ...shape, store: { ...where, job }, node, threads, token, hosts, ...hint };
}

/** As the starter numbers the nodes (torchrun's name, and Slurm's); else by the first of the ranks that stand in a row on one. */
function nodeName(env: Env, firstRank: number): string {
  const { value } = firstSet(env, ['GROUP_RANK', 'SLURM_NODEID']);
  return value === undefined || value === '' ? `rank ${firstRank}` : `node ${value}`;
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
  const given = (env['MASTER_ADDR'] ?? '').trim();
  const host = given !== '' ? bareAddress(given) : starter === 'slurm' ? (expandHosts(nodeList(env))[0] ?? '') : '';
  if (host === '') problems.push('MASTER_ADDR is not set: it names the node of rank 0');
  return { host, port };
}

function splitAddress(address: string, problems: string[]): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  const port = readInteger({ [ENV.store]: address.slice(colon + 1) }, ENV.store, 1, 65_535, problems);
  return { host: bareAddress(address.slice(0, Math.max(0, colon))), port };
}

/** `[::1]` is ::1. */
function bareAddress(host: string): string {
  return /^\[(.*)\]$/.exec(host)?.[1] ?? host;
}

function nodeList(env: Env): string {
  return firstSet(env, ['SLURM_STEP_NODELIST', 'SLURM_JOB_NODELIST', 'SLURM_NODELIST']).value ?? '';
}

function tasksPerNode(env: Env): number[] {
  return parseTasksPerNode(firstSet(env, variablesOf('slurm').localWorldSize).value ?? '');
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

function slurmLocalSize(env: Env, problems: string[]): number {
  const { value = 'not set' } = firstSet(env, variablesOf('slurm').localWorldSize);
  const node = Number(env['SLURM_NODEID'] ?? 0);
  const size = tasksPerNode(env)[node];
  if (size === undefined) problems.push(`SLURM_STEP_TASKS_PER_NODE (${value}) has no entry for SLURM_NODEID ${node}`);
  return size ?? NaN;
}

/** The same on every task of a job, and seldom that of another job. */
function slurmPort(env: Env): number {
  return 20_000 + (Number(env['SLURM_JOB_ID'] ?? 0) % 20_000);
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

/** One process cannot be several ranks. */
function podError(nodes: number, ranks: string): MbridgeError {
  const found = `PyTorchJob started one process for the ranks of this pod (PET_NPROC_PER_NODE=${ranks}, ${nodes} pods)`;
  return new MbridgeError('environment', 'MB_WORKER_ENVIRONMENT', found, {
    hint: 'start a launcher in each pod: --nproc N --nnodes "$PET_NNODES" --node-rank "$PET_NODE_RANK" --rdzv-endpoint "$MASTER_ADDR:$MASTER_PORT"; mbridge launch k8s --kind pytorchjob writes such a job',
    details: { problems: [found] },
  });
}

function environmentError(problems: string[], title: string): MbridgeError {
  const found = problems.join('; ');
  return new MbridgeError('environment', 'MB_WORKER_ENVIRONMENT', `this worker's environment (${title}): ${found}`, {
    hint: 'start workers with `mbridge pretrain --nproc N`, torchrun, srun or mpirun, or set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT',
    details: { problems },
  });
}

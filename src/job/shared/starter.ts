import { MbridgeError } from '../../base/errors.js';
import { ENV } from './messages.js';
import { podOf, startsRanks } from './pod.js';

/** Who started this process: our launcher, or one of those whose environment is understood as well. */
export type Starter = 'mbridge' | 'ranks' | 'torchrun' | OtherStarter;
type OtherStarter = 'openmpi' | 'mpich' | 'mvapich' | 'jsrun' | 'flux' | 'slurm' | 'indexed-job';

export type Env = Readonly<Record<string, string | undefined>>;

/** Where one starter writes the four numbers; of several names the first that is set counts. */
export interface RankVariables {
  /** For messages. */
  title: string;
  rank: readonly [string, ...string[]];
  worldSize: readonly [string, ...string[]];
  localRank: readonly [string, ...string[]];
  localWorldSize: readonly [string, ...string[]];
}

const TORCH: RankVariables = {
  title: 'torchrun, or RANK and WORLD_SIZE',
  rank: ['RANK'],
  worldSize: ['WORLD_SIZE'],
  localRank: ['LOCAL_RANK'],
  localWorldSize: ['LOCAL_WORLD_SIZE'],
};

/** In the order in which they are looked for: an mpirun inside a Slurm job counts, not the job. */
const OTHERS: Readonly<Record<OtherStarter, RankVariables>> = {
  openmpi: {
    title: 'Open MPI',
    rank: ['OMPI_COMM_WORLD_RANK'],
    worldSize: ['OMPI_COMM_WORLD_SIZE'],
    localRank: ['OMPI_COMM_WORLD_LOCAL_RANK'],
    localWorldSize: ['OMPI_COMM_WORLD_LOCAL_SIZE'],
  },
  mvapich: {
    title: 'MVAPICH',
    rank: ['MV2_COMM_WORLD_RANK'],
    worldSize: ['MV2_COMM_WORLD_SIZE'],
    localRank: ['MV2_COMM_WORLD_LOCAL_RANK'],
    localWorldSize: ['MV2_COMM_WORLD_LOCAL_SIZE'],
  },
  jsrun: {
    title: 'jsrun',
    rank: ['JSM_NAMESPACE_RANK'],
    worldSize: ['JSM_NAMESPACE_SIZE'],
    localRank: ['JSM_NAMESPACE_LOCAL_RANK'],
    localWorldSize: ['JSM_NAMESPACE_LOCAL_SIZE'],
  },
  // Hydra's names, of MPICH and Intel MPI, then Cray's.
  mpich: {
    title: 'MPICH or Intel MPI',
    rank: ['PMI_RANK'],
    worldSize: ['PMI_SIZE'],
    localRank: ['MPI_LOCALRANKID', 'PMI_LOCAL_RANK'],
    localWorldSize: ['MPI_LOCALNRANKS', 'PMI_LOCAL_SIZE'],
  },
  // A step may have fewer tasks than the job, and the job's number stays in the environment.
  slurm: {
    title: 'Slurm',
    rank: ['SLURM_PROCID'],
    worldSize: ['SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS'],
    localRank: ['SLURM_LOCALID'],
    localWorldSize: ['SLURM_STEP_TASKS_PER_NODE', 'SLURM_TASKS_PER_NODE'],
  },
  // Says no size by node.
  flux: {
    title: 'Flux',
    rank: ['FLUX_TASK_RANK'],
    worldSize: ['FLUX_JOB_SIZE'],
    localRank: ['FLUX_TASK_LOCAL_ID'],
    localWorldSize: ['LOCAL_WORLD_SIZE'],
  },
  // A rank a pod, unless it is said otherwise. Kubernetes says the pod's number alone.
  'indexed-job': {
    title: 'an indexed Job of Kubernetes',
    rank: ['JOB_COMPLETION_INDEX'],
    worldSize: ['WORLD_SIZE'],
    localRank: ['LOCAL_RANK'],
    localWorldSize: ['LOCAL_WORLD_SIZE'],
  },
};

export function variablesOf(starter: Starter): RankVariables {
  return starter in OTHERS ? OTHERS[starter as OtherStarter] : TORCH;
}

/** The first of some variables that is set, and its name; the first name where none is. */
export function firstSet(env: Env, names: readonly [string, ...string[]]): { name: string; value: string | undefined } {
  const name = names.find((each) => (env[each] ?? '') !== '') ?? names[0];
  return { name, value: env[name] };
}

/**
 * Who started this process as one of several, or undefined if nobody did. A single Slurm or MPI task is no worker: it is
 * a shell in which the user may start a launcher; so is the process of a PyTorchJob's only pod. RANK wins over all others;
 * WORLD_SIZE alone, which scripts like to export, does not.
 */
export function detectStarter(env: Env): Starter | undefined {
  if (isOnlyPod(env)) return undefined;
  if (env['RANK'] === undefined) {
    const found = (Object.keys(OTHERS) as OtherStarter[]).find((name) => isOneOfSeveral(env, name));
    if (found !== undefined) return found;
    if (env['WORLD_SIZE'] === undefined) return undefined;
  }
  if (env[ENV.store] !== undefined) return 'mbridge';
  return env['TORCHELASTIC_RUN_ID'] === undefined ? 'ranks' : 'torchrun';
}

function isOnlyPod(env: Env): boolean {
  const pod = podOf(env);
  return pod !== undefined && pod.nodes === 1 && startsRanks(pod);
}

function isOneOfSeveral(env: Env, starter: OtherStarter): boolean {
  const { rank, worldSize, localRank } = OTHERS[starter];
  if (firstSet(env, rank).value === undefined || !(Number(firstSet(env, worldSize).value ?? 0) > 1)) return false;
  // srun sets PMI_RANK too, for programs that use MPI.
  const { slurm } = OTHERS;
  const hasOwn = firstSet(env, localRank).value !== undefined;
  return starter !== 'mpich' || hasOwn || firstSet(env, slurm.rank).value === undefined;
}

/** Whether Slurm started this process as a task of a step: a batch script has a rank and a size too, but nobody else. */
export function isSlurmStep(env: Env): boolean {
  return ['SLURM_STEP_NUM_TASKS', 'SLURM_STEP_TASKS_PER_NODE', 'SLURM_STEP_NODELIST'].some(
    (name) => env[name] !== undefined,
  );
}

/**
 * To be called before processes are started: where this process is one of several already, each would start a run of
 * its own. Fails with MB_SEVERAL_LAUNCHERS or, where the starter is not understood, MB_UNKNOWN_STARTER (exit 2).
 * @param isOneNode whether it was told to be the launcher of one node of several (`--nnodes`)
 */
export function refuseSeveralLaunchers(env: Env, isOneNode = false): void {
  // The operator numbers pods as ranks are numbered, and a launcher in each is what the pods are for.
  if (isOneNode && podOf(env) !== undefined) return;
  const starter = detectStarter(env);
  if (starter === undefined) refuseUnknownStarter(env);
  if (starter === undefined || starter === 'mbridge' || (starter === 'slurm' && !isSlurmStep(env))) return;
  const { title, rank, worldSize } = variablesOf(starter);
  const [own, all] = [firstSet(env, rank), firstSet(env, worldSize)];
  if (own.value === undefined || !(Number(all.value ?? 0) > 1)) return;
  throw new MbridgeError(
    'usage',
    'MB_SEVERAL_LAUNCHERS',
    `this is process ${own.value} of ${all.value} that ${title} started (${own.name}, ${all.name}), and each of them would start processes of its own`,
    { hint: 'leave --nproc out, and each process becomes one rank; or start a single process' },
  );
}

/** Ranks of starters that do not say how many there are. */
const UNKNOWN = { PMIX_RANK: 'a PMIx launcher', PALS_RANKID: 'PALS', ALPS_APP_PE: 'aprun' } as const;

function refuseUnknownStarter(env: Env): void {
  const single = Object.values(OTHERS).some(({ worldSize }) => firstSet(env, worldSize).value === '1');
  const found = Object.entries(UNKNOWN).find(([name]) => env[name] !== undefined);
  if (found === undefined || single) return;
  const [name, title] = found;
  throw new MbridgeError(
    'usage',
    'MB_UNKNOWN_STARTER',
    `${title} started this process (${name}=${env[name]}), but does not say of how many`,
    {
      hint: 'set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each process; unset the variable where this is a single one',
    },
  );
}

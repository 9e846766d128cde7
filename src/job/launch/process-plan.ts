import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { nodeOptions, programOptions } from '../../base/early-signals.js';
import { MbridgeError } from '../../base/errors.js';
import { WARN_LEVEL } from '../shared/console-lines.js';
import { ENV } from '../shared/messages.js';
import { compiledFile } from '../../base/package-root.js';
import { LOG_FILE, STDERR_FILE, STDOUT_FILE, rankFolder } from '../shared/run-folder.js';
import type { LaunchJob } from './job.js';

/** What will be started, as data. Secrets and the store's port are only known at the start, and are added there. */
export interface ProcessPlan {
  runDir: string;
  nproc: number;
  device: 'cpu' | 'cuda';
  cores: number;
  /** CPU threads of each rank. */
  threadsPerRank: number;
  ranks: RankProcess[];
}

export interface RankProcess {
  rank: number;
  /** Program and arguments. */
  command: string[];
  /** Added to the launcher's own environment. */
  env: Record<string, string>;
  files: { log: string; stdout: string; stderr: string };
}

/** The parts of a job that decide its processes. */
export type PlannedJob = Pick<
  LaunchJob,
  'nproc' | 'nodes' | 'device' | 'cores' | 'consoleRanks' | 'workerModule' | 'program'
>;

const INFO_LEVEL = 30;
const LAUNCHED_ON = '127.0.0.1';

/** One process a rank, each with its share of the cores. Pure but for reading the number of cores where none is given. */
export function planProcesses(job: PlannedJob, runDir: string): ProcessPlan {
  const { nproc, device, consoleRanks = [0], nodes, program } = job;
  if (!Number.isSafeInteger(nproc) || nproc < 1) {
    throw new MbridgeError('config', 'MB_NPROC', `--nproc is ${nproc}, but must be a positive integer`);
  }
  const cores = job.cores ?? availableParallelism();
  const threadsPerRank = Math.max(1, Math.floor(cores / nproc));
  // What loads the program's modules loads them in its ranks as well.
  const options = job.workerModule === undefined && program === undefined ? [] : programOptions();
  const node = [process.execPath, ...nodeOptions(), ...options];
  const main = compiledFile('job/worker/main.js');
  const worldSize = nproc * (nodes?.count ?? 1);
  const ranks = Array.from({ length: nproc }, (_, localRank): RankProcess => {
    const rank = nproc * (nodes?.rank ?? 0) + localRank;
    const shown = consoleRanks === 'all' || consoleRanks.includes(rank);
    const folder = rankFolder(runDir, rank);
    return {
      rank,
      command: [...node, ...(program?.command ?? [main, '--rank', String(rank)])],
      env: {
        RANK: String(rank),
        LOCAL_RANK: String(localRank),
        WORLD_SIZE: String(worldSize),
        LOCAL_WORLD_SIZE: String(nproc),
        MASTER_ADDR: nodes?.host ?? LAUNCHED_ON,
        ...(nodes === undefined ? {} : { GROUP_RANK: String(nodes.rank) }),
        [ENV.runDir]: runDir,
        [ENV.threads]: String(threadsPerRank),
        [ENV.consoleLevel]: String(shown ? INFO_LEVEL : WARN_LEVEL),
        ...(job.workerModule === undefined ? {} : { [ENV.workerModule]: job.workerModule }),
        ...(program === undefined ? {} : { [ENV.asked]: program.asked }),
      },
      files: { log: join(folder, LOG_FILE), stdout: join(folder, STDOUT_FILE), stderr: join(folder, STDERR_FILE) },
    };
  });
  return { runDir, nproc, device, cores, threadsPerRank, ranks };
}

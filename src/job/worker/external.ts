import type { RunConfig } from '../../config/schema.js';
import type { Store } from '../rendezvous/store.js';
import type { ProgramStart } from '../shared/program-start.js';
import { withSavesOf, type Announcement, type RunStart } from '../shared/run-start.js';
import { claimRunFolder, writeRunRecord } from '../shared/run-folder.js';
import type { WorkerEnvironment } from './environment.js';

/** What a worker under our launcher reads from the run's folder; under torchrun, srun or mpirun every rank brings it. */
export interface ExternalRun extends RunStart {
  /** For the default name of the run's folder. */
  name: string;
  config: RunConfig;
  device: 'cpu' | 'cuda';
  argv: readonly string[];
  layout?: Readonly<Record<string, number>>;
  runDir?: string;
  /** NDJSON on stdout. */
  json?: boolean;
  /** Absolute path of another module that exports runWorker, and what it is given as `context.options`. */
  workerModule?: string;
  options?: unknown;
  /** Where it is the program itself that brings what the ranks run. */
  program?: ProgramStart;
}

/** What the ranks agree on before anything is built. */
export interface AgreedRun {
  readonly runDir: string;
  /** With `checkpoint.save` as rank 0 has it. */
  readonly config: RunConfig;
  /** Of rank 0. */
  readonly announced?: Announcement | undefined;
}

/** Rank 0 makes the run's folder, which is its own until the process ends, and the store tells the others which it is. */
export async function agreeOnRun(
  external: ExternalRun,
  { rank, worldSize }: WorkerEnvironment,
  store: Store,
  timeoutMs: number,
): Promise<AgreedRun> {
  if (rank !== 0) {
    const told = JSON.parse(Buffer.from(await store.get(KEY, timeoutMs)).toString()) as Told;
    const { config } = external;
    return { runDir: told.runDir, config: { ...config, checkpoint: { ...config.checkpoint, ...told.checkpoint } } };
  }
  const { name, device, argv, layout = {}, options, savesInRunFolder = false, workerModule = null } = external;
  const ranks = Array.from({ length: worldSize }, (_, r) => r);
  const { runDir } = claimRunFolder(name, external.runDir ?? external.config.logger.log_dir ?? undefined, ranks);
  const config = withSavesOf(external.config, runDir, savesInRunFolder);
  const record = {
    name,
    argv,
    device,
    nproc: worldSize,
    layout,
    config,
    savesInRunFolder,
    worker: workerModule ?? external.program?.command[0] ?? null,
    options,
  };
  await writeRunRecord(runDir, record);
  const told: Told = { runDir, checkpoint: config.checkpoint };
  await store.set(KEY, Buffer.from(JSON.stringify(told)));
  return { runDir, config, announced: external.announce?.(runDir, config) };
}

const KEY = 'run/folder';

interface Told {
  readonly runDir: string;
  readonly checkpoint: RunConfig['checkpoint'];
}

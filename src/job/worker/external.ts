import type { RunConfig } from '../../config/schema.js';
import type { Store } from '../rendezvous/store.js';
import { claimRunFolder, writeRunRecord } from '../shared/run-folder.js';
import type { WorkerEnvironment } from './environment.js';

/** What a worker under our launcher reads from the run's folder; under torchrun, srun or mpirun every rank brings it. */
export interface ExternalRun {
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
}

/** Rank 0 makes the run's folder, which is its own until the process ends, and the store tells the others which it is. */
export async function agreeOnFolder(
  external: ExternalRun,
  { rank, worldSize }: WorkerEnvironment,
  store: Store,
  timeoutMs: number,
): Promise<string> {
  if (rank !== 0) return Buffer.from(await store.get('run/folder', timeoutMs)).toString();
  const { name, config, device, argv, layout = {}, options } = external;
  const ranks = Array.from({ length: worldSize }, (_, r) => r);
  const { runDir } = claimRunFolder(name, external.runDir ?? config.logger.log_dir ?? undefined, ranks);
  await writeRunRecord(runDir, { name, argv, device, nproc: worldSize, layout, config, options });
  await store.set('run/folder', Buffer.from(runDir));
  return runDir;
}

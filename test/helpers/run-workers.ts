import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { RunConfig } from '../../src/config/schema.js';
import { launch } from '../../src/job/launch/launch.js';
import { temporaryFolder } from '../job/launch/processes.js';

export interface WorkersRun {
  exitCode: number;
  /** What the workers emitted, in the order of arrival. */
  events: { type: string }[];
  /** Everything that was printed beside it. */
  log: string;
  /** Gone after the test. */
  runDir: string;
}

/** Runs the worker module `test/workers/<name>.mjs` on `nproc` ranks, with `options` as its context's. */
export async function runWorkers(
  name: string,
  config: RunConfig,
  nproc: number,
  options?: unknown,
  device: 'cpu' | 'cuda' = 'cpu',
): Promise<WorkersRun> {
  const runDir = join(temporaryFolder(), 'run');
  const events: { type: string }[] = [];
  let log = '';
  const { exitCode } = await launch({
    name,
    config,
    nproc,
    device,
    runDir,
    argv: [],
    workerModule: join(import.meta.dirname, `../workers/${name}.mjs`),
    options,
    onEvent: (event) => events.push(event),
    stdout: new Writable({ write: (_chunk, _, done) => done() }),
    stderr: new Writable({ write: (chunk, _, done) => ((log += String(chunk)), done()) }),
  });
  return { exitCode, events, log, runDir };
}

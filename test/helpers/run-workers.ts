import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { RunConfig } from '../../src/config/schema.js';
import { launch } from '../../src/job/launch/launch.js';
import { temporaryFolder } from '../job/launch/processes.js';

export interface WorkersRun {
  exitCode: number;
  /** What the workers emitted, in the order of arrival, without the closing result. */
  events: { type: string }[];
  /** Everything that was printed beside it. */
  log: string;
  /** Gone after the test. */
  runDir: string;
}

/** Runs the worker module `test/workers/<name>.mjs` on `nproc` CPU ranks. */
export async function runWorkers(name: string, config: RunConfig, nproc: number): Promise<WorkersRun> {
  const runDir = join(temporaryFolder(), 'run');
  let out = '';
  let log = '';
  const { exitCode } = await launch({
    name,
    config,
    nproc,
    device: 'cpu',
    json: true,
    runDir,
    argv: [],
    workerModule: join(import.meta.dirname, `../workers/${name}.mjs`),
    stdout: new Writable({ write: (chunk, _, done) => ((out += String(chunk)), done()) }),
    stderr: new Writable({ write: (chunk, _, done) => ((log += String(chunk)), done()) }),
  });
  const lines = out.split('\n').filter((line) => line !== '');
  const events = lines.map((line) => JSON.parse(line) as { type: string }).filter(({ type }) => type !== 'result');
  return { exitCode, events, log, runDir };
}

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { RunConfig } from '../../config/schema.js';
import { EXIT } from '../../base/errors.js';
import { launch } from '../../job/launch/launch.js';
import type { WorkerEvent } from '../../job/shared/messages.js';
import { compiledFile } from '../../base/package-root.js';
import type { BenchEvent } from '../../bench/run/worker-events.js';

export interface BenchJob {
  /** Compiled module of src/ that exports runWorker, such as `bench/comm-worker.js`. */
  readonly module: string;
  readonly name: string;
  readonly config: RunConfig;
  readonly nproc: number;
  readonly device: 'cpu' | 'cuda';
  readonly options: unknown;
}

export interface BenchRun {
  readonly exitCode: number;
  /** How the run ended, as `--json` says it. */
  readonly result: WorkerEvent;
  /** In the order in which they came. */
  readonly events: readonly BenchEvent[];
}

/**
 * Runs a measuring worker on every rank and collects what they report. A failure is printed. The run's folder goes unless
 * it was named or the run failed; a signal is no failure.
 */
export async function runBench(job: BenchJob): Promise<BenchRun> {
  const events: BenchEvent[] = [];
  const nowhere = new Writable({
    write(_chunk, _encoding, done) {
      done();
    },
  });
  const said: Buffer[] = [];
  const stderr = new Writable({
    write(chunk: Buffer, _, done) {
      said.push(chunk);
      done();
    },
  });
  const { module, name, config, nproc, device, options } = job;
  const named = config.logger.log_dir;
  const runDir = named ?? mkdtempSync(join(tmpdir(), 'mbridge-bench-'));
  const started = launch({
    name,
    config,
    nproc,
    device,
    argv: process.argv,
    runDir,
    workerModule: compiledFile(module),
    options,
    onEvent: (event) => events.push({ ...event, at: performance.now() / 1000 }),
    stdout: nowhere,
    stderr,
  });
  const { exitCode, result } = await started.catch((error: unknown) => {
    // Refused before anything ran: there is nothing to read in it.
    if (named === null) rmSync(runDir, { recursive: true });
    throw error;
  });
  const failed = exitCode !== EXIT.ok && exitCode <= 128;
  if (named === null && !failed) rmSync(runDir, { recursive: true });
  if (failed) process.stderr.write(Buffer.concat(said));
  return { exitCode, result, events };
}

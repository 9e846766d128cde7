import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { RunConfig } from '../../config/schema.js';
import { EXIT } from '../../base/errors.js';
import { launch } from '../../job/launch/launch.js';
import { LineSplitter } from '../../base/line-splitter.js';
import { compiledFile } from '../../base/package-root.js';
import type { BenchEvent } from '../../bench/run/worker-events.js';
import { BENCH_OPTIONS } from '../../bench/run/worker-options.js';

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
  /** In the order in which they came. */
  readonly events: readonly BenchEvent[];
}

/** A profile is one line. */
const LONGEST_LINE = 2 ** 24;

/**
 * Runs a measuring worker on every rank and collects what they report. A failure is printed. The run's folder goes unless
 * it was named or the run failed; a signal is no failure.
 */
export async function runBench(job: BenchJob): Promise<BenchRun> {
  const events: BenchEvent[] = [];
  const lines = new LineSplitter((line) => {
    events.push({ ...(JSON.parse(line) as { type: string }), at: performance.now() / 1000 });
  }, LONGEST_LINE);
  const stdout = new Writable({
    write(chunk: Buffer, _, done) {
      lines.push(chunk);
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
  const { exitCode } = await launch({
    name,
    config,
    nproc,
    device,
    argv: process.argv,
    json: true,
    runDir,
    workerModule: compiledFile(module),
    env: { [BENCH_OPTIONS]: JSON.stringify(options) },
    stdout,
    stderr,
  });
  if (named === null && (exitCode === EXIT.ok || exitCode > 128)) rmSync(runDir, { recursive: true });
  if (exitCode !== EXIT.ok) process.stderr.write(Buffer.concat(said));
  return { exitCode, events };
}

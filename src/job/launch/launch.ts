import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { relative } from 'node:path';
import { formatRanks } from '../rendezvous/store-protocol.js';
import { StoreServer } from '../rendezvous/store-server.js';
import { EXIT, MbridgeError } from '../../base/errors.js';
import { ENV, type StopSignal, type WorkerRun } from '../shared/messages.js';
import { removeDeadClaim } from '../../base/folder-claim.js';
import { compiledFile } from '../../base/package-root.js';
import { reportError, stdoutRefused } from '../shared/report-error.js';
import { claimRunFolder, writeRunRecord } from '../shared/run-folder.js';
import { formatFailure } from './failure-text.js';
import type { LaunchJob, LaunchResult } from './job.js';
import { planProcesses, type ProcessPlan } from './process-plan.js';
import { findRootCause, type RootCause } from './root-cause.js';
import { RunOutput } from './run-output.js';
import { listenForSignals, signalExitCode } from './signals.js';
import { StallNotice } from './stall-notice.js';
import { Supervisor, type Supervision } from './supervisor.js';
import { WorkerProcess, type WorkerListener } from './worker-process.js';

const DEFAULT_GRACE_MS = 30_000;
/** A run that stops saves first, and a large state takes its time on a slow disk. */
const SAVING_GRACE_MS = 600_000;

/**
 * Runs a job: one worker process a rank, until all have ended. Prints results on stdout and everything else, a failure
 * included, on stderr. Handles SIGINT, SIGTERM and SIGHUP while it runs: the first asks the workers to stop after their
 * step, the second kills them. Rejects only if the run could not be set up (MbridgeError).
 */
export async function launch(job: LaunchJob): Promise<LaunchResult> {
  if (!existsSync(compiledFile('job/worker/main.js'))) {
    throw new MbridgeError('environment', 'MB_NOT_BUILT', `${compiledFile('job/worker/main.js')} is missing`, {
      hint: 'build the package first: npm run build',
    });
  }
  const ranks = Array.from({ length: job.nproc }, (_, rank) => rank);
  const { runDir, claim } = claimRunFolder(job.name, job.runDir ?? job.config.logger.log_dir ?? undefined, ranks);
  try {
    const plan = planProcesses(job, runDir);
    const { name, argv, device, nproc, layout = {}, config, options } = job;
    await writeRunRecord(runDir, { name, argv, device, nproc, layout, config, options });
    const token = randomBytes(32).toString('hex');
    const store = await StoreServer.listen({ host: '127.0.0.1', port: 0, token, worldSize: nproc });
    try {
      return await superviseRun(job, plan, { token, port: store.port });
    } finally {
      await store.close();
      // A worker that had to be killed could not give its folder back.
      if (config.checkpoint.save !== null) removeDeadClaim(config.checkpoint.save, 'save');
    }
  } finally {
    claim.release();
  }
}

async function superviseRun(
  job: LaunchJob,
  plan: ProcessPlan,
  store: { token: string; port: number },
): Promise<LaunchResult> {
  const started = performance.now();
  const { runDir } = plan;
  const stopped: { request: (signal: StopSignal) => void } = { request: () => undefined };
  const refused: { stdout: MbridgeError | undefined } = { stdout: undefined };
  const output = new RunOutput({
    stdout: job.stdout ?? process.stdout,
    stderr: job.stderr ?? process.stderr,
    json: job.json ?? false,
    totalSteps: job.config.train.train_iters,
    device: job.device,
    nproc: job.nproc,
    consoleRanks: job.consoleRanks ?? [0],
    onBrokenPipe: (error) => {
      if (error.code !== 'EPIPE') refused.stdout = stdoutRefused(error);
      stopped.request('SIGPIPE');
    },
  });
  const stall = new StallNotice(job.nproc, (text) => {
    output.warn(text);
  });
  const saves = job.config.checkpoint.save !== null;
  const graceMs = job.gracePeriodMs ?? (saves ? SAVING_GRACE_MS : DEFAULT_GRACE_MS);
  const workers: WorkerProcess[] = [];
  const supervisor = new Supervisor(workers, graceMs);
  stopped.request = (signal) => {
    const how = supervisor.request(signal);
    if (how === 'repeated') return;
    output.note(
      how === 'killed'
        ? `${signal}: killed all workers`
        : `${signal}: workers stop after their current step (at most ${graceMs / 1000} s); again to kill them now`,
    );
  };
  const unlisten = listenForSignals(stopped.request);
  const killAll = (): void => {
    supervisor.killAll();
  };
  process.on('exit', killAll); // whatever ends this process
  const run: WorkerRun = { config: job.config, device: job.device, options: job.options };
  try {
    const extraEnv: Record<string, string> = {
      MASTER_PORT: String(store.port),
      [ENV.store]: `127.0.0.1:${store.port}`,
      [ENV.token]: store.token,
      [ENV.launcherPid]: String(process.pid),
    };
    const listener: WorkerListener = {
      event: (rank, event) => {
        job.onEvent?.(event, rank);
        output.event(event);
      },
      log: output.log.bind(output),
      output: output.output.bind(output),
      progress: stall.progress.bind(stall),
      failed: () => {
        supervisor.fail();
      },
      done: (rank) => {
        supervisor.done(rank);
      },
    };
    for (const rank of plan.ranks) {
      const worker = new WorkerProcess(rank, extraEnv, runDir, listener);
      worker.give(run);
      workers.push(worker);
    }
    const supervision = await supervisor.wait();
    const wallS = (performance.now() - started) / 1000;
    const exitCode = conclude(supervision, plan, output, wallS);
    // A reader that has gone is counted as SIGPIPE is; a disk that is full is an error of its own.
    const full = refused.stdout !== undefined && exitCode === signalExitCode('SIGPIPE');
    return { exitCode: full ? reportError(refused.stdout, false) : exitCode, runDir, result: output.closing };
  } finally {
    killAll();
    process.off('exit', killAll);
    unlisten();
    stall.close();
    output.close();
  }
}

/** Prints how the run ended, and returns the exit code. */
function conclude(supervision: Supervision, plan: ProcessPlan, output: RunOutput, wallS: number): number {
  const { exits, stubborn } = supervision;
  // A worker may have been signalled directly; all ranks then agreed to stop.
  const signal =
    supervision.stop === 'no' ? (exits.find((exit) => exit.stopped !== 'no')?.stopped ?? 'no') : supervision.stop;
  const cause = findRootCause(exits);
  const ending = { run_dir: plan.runDir, wall_s: Math.round(wallS * 1000) / 1000 };

  // After a stop was asked for, ranks that were killed are no failure; one that reported an error of its own is.
  if (cause !== undefined && (signal === 'no' || isOwnFailure(cause, exits))) {
    const files = plan.ranks[cause.rank]?.files;
    if (files !== undefined) output.note(formatFailure(cause, files, output.paint));
    const { rank, step, code, message, hint } = cause;
    output.result({ ok: false, exit_code: cause.exitCode, error: { rank, step, code, message, hint }, ...ending });
    return cause.exitCode;
  }
  if (stubborn.length > 0) output.warn(`rank ${formatRanks(stubborn)} did not end in time and was killed`);
  if (signal !== 'no') {
    const exitCode = signalExitCode(signal);
    output.result({ ok: false, exit_code: exitCode, signal, ...ending });
    return exitCode;
  }
  output.result({ ok: true, exit_code: EXIT.ok, ...ending });
  output.note(`finished in ${wallS.toFixed(1)} s; logs and configuration: ${relative(process.cwd(), plan.runDir)}`);
  return EXIT.ok;
}

function isOwnFailure(cause: RootCause, exits: Supervision['exits']): boolean {
  const exit = exits.find(({ rank }) => rank === cause.rank);
  return exit !== undefined && !exit.ended && cause.code !== 'MB_PEER_LOST';
}

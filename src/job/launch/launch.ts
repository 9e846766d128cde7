import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { takeEarlySignals } from '../../base/early-signals.js';
import { EXIT, MbridgeError } from '../../base/errors.js';
import { removeDeadClaim } from '../../base/folder-claim.js';
import { formatRanks } from '../../base/format-ranks.js';
import { compiledFile } from '../../base/package-root.js';
import { StoreServer } from '../rendezvous/store-server.js';
import { formatEnding, formatSaved, type Ending } from '../shared/ending-text.js';
import { formatFailure } from '../shared/failure-text.js';
import { ENV, type SavedCheckpoint, type WorkerRun } from '../shared/messages.js';
import { reportError } from '../shared/report-error.js';
import { findRootCause, type RootCause } from '../shared/root-cause.js';
import { claimRunFolder, writeRunRecord } from '../shared/run-folder.js';
import { StallNotice } from '../shared/stall-notice.js';
import { refuseSeveralLaunchers } from '../shared/starter.js';
import { listenForSignals, signalExitCode, type StopSignal } from '../shared/stop-signals.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import type { LaunchJob, LaunchResult } from './job.js';
import { planProcesses, type ProcessPlan } from './process-plan.js';
import { RunOutput } from './run-output.js';
import { Supervisor, type Supervision } from './supervisor.js';
import { TeardownDeadline } from './teardown-deadline.js';
import { WorkerProcess, type WorkerListener } from './worker-process.js';

const DEFAULT_GRACE_MS = 30_000;
/** A run that stops saves first, and a large state takes its time on a slow disk. */
const SAVING_GRACE_MS = 600_000;

/**
 * Runs a job: one worker process a rank, until all have ended. Prints results on stdout and everything else, a failure
 * included, on stderr. Handles the signals that ask a run to stop while it runs: the first asks the workers to stop after
 * their step, the second kills them. Rejects only if the run could not be set up (MbridgeError).
 */
export async function launch(job: LaunchJob): Promise<LaunchResult> {
  takeEarlySignals();
  refuseSeveralLaunchers(process.env);
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
    try {
      return await superviseRun(job, plan);
    } finally {
      // A worker that had to be killed could not give its folder back.
      if (config.checkpoint.save !== null) removeDeadClaim(config.checkpoint.save, 'save');
    }
  } finally {
    claim.release();
  }
}

async function superviseRun(job: LaunchJob, plan: ProcessPlan): Promise<LaunchResult> {
  const started = performance.now();
  const { runDir } = plan;
  const stopped: { request: (signal: StopSignal) => void } = { request: () => undefined };
  const output = new RunOutput({
    stdout: job.stdout ?? process.stdout,
    stderr: job.stderr ?? process.stderr,
    json: job.json ?? false,
    totalSteps: job.config.train.train_iters,
    device: job.device,
    nproc: job.nproc,
    consoleRanks: job.consoleRanks ?? [0],
    onBrokenPipe: () => {
      stopped.request('SIGPIPE');
    },
  });
  const warn = output.warn.bind(output);
  const stall = new StallNotice(job.nproc, warn);
  const token = randomBytes(32).toString('hex');
  const store = await StoreServer.listen(
    { host: '127.0.0.1', port: 0, token, worldSize: job.nproc },
    { onBegin: stall.progress.bind(stall) },
  );
  const waiting = new WaitingNotice({ worldSize: job.nproc, missing: () => store.missing }, warn);
  const saves = job.config.checkpoint.save !== null;
  const graceMs = job.gracePeriodMs ?? (saves ? SAVING_GRACE_MS : DEFAULT_GRACE_MS);
  const workers: WorkerProcess[] = [];
  const supervisor = new Supervisor(workers, graceMs);
  const last: { saved: SavedCheckpoint | undefined } = { saved: undefined };
  // Other programs may have ranks that are done long before the others.
  const teardown = new TeardownDeadline(
    job.nproc,
    job.workerModule === undefined ? job.config.dist.timeout_s : null,
    (text) => {
      supervisor.giveUp(text);
    },
  );
  stopped.request = (signal) => {
    const how = supervisor.request(signal);
    if (how === 'repeated') return;
    waiting.close();
    output.note(
      how === 'killed'
        ? `${signal}: killed all workers`
        : `${signal}: workers stop after their current step (at most ${graceMs / 1000} s); Ctrl-C again to kill them now`,
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
      [ENV.token]: token,
      [ENV.launcherPid]: String(process.pid),
    };
    const listener: WorkerListener = {
      event: (rank, event) => {
        teardown.alive();
        job.onEvent?.(event, rank);
        const shown = job.shown === undefined ? event : job.shown(event, runDir);
        if (shown !== null) output.event(shown);
      },
      log: (rank, line) => {
        teardown.alive();
        output.log(rank, line);
      },
      output: output.output.bind(output),
      saved: (saved) => {
        last.saved = saved;
      },
      step: (rank) => store.begun[rank] ?? 0,
      failed: () => {
        supervisor.fail();
      },
      done: (rank) => {
        stall.done(rank);
        teardown.done(rank);
        supervisor.done(rank);
      },
    };
    for (const rank of plan.ranks) {
      const worker = new WorkerProcess(rank, extraEnv, runDir, listener);
      worker.give(run);
      workers.push(worker);
    }
    const supervision = await supervisor.wait();
    const ending: Ending = {
      signal: signalOf(supervision),
      steps: output.steps ?? store.begun.reduce((most, step) => Math.max(most, step), 0),
      saved: last.saved,
      saveFolder: job.config.checkpoint.save,
      argv: job.argv,
      runDir,
      wallS: (performance.now() - started) / 1000,
    };
    const exitCode = conclude(supervision, plan, output, ending);
    return { exitCode, runDir, result: output.closing };
  } finally {
    killAll();
    process.off('exit', killAll);
    unlisten();
    stall.close();
    waiting.close();
    teardown.close();
    output.close();
    await store.close();
  }
}

/** A worker may have been signalled directly; all ranks then agreed to stop. */
function signalOf({ stop, exits }: Supervision): 'no' | StopSignal {
  return stop === 'no' ? (exits.find((exit) => exit.stopped !== 'no')?.stopped ?? 'no') : stop;
}

/** Prints how the run ended, and returns the exit code. */
function conclude(supervision: Supervision, plan: ProcessPlan, output: RunOutput, how: Ending): number {
  const { exits, stubborn, givenUp } = supervision;
  const { signal } = how;
  const cause = givenUp === undefined ? findRootCause(exits) : undefined;
  const ending = { run_dir: plan.runDir, wall_s: Math.round(how.wallS * 1000) / 1000 };

  // After a stop was asked for, ranks that were killed are no failure; one that reported an error of its own is.
  if (cause !== undefined && (signal === 'no' || isOwnFailure(cause, exits))) {
    const files = plan.ranks[cause.rank]?.files;
    if (files !== undefined) output.note([formatFailure(cause, files, output.paint), ...savedBefore(how)].join('\n'));
    const { rank, step, code, message, hint } = cause;
    output.result({ ok: false, exit_code: cause.exitCode, error: { rank, step, code, message, hint }, ...ending });
    return cause.exitCode;
  }
  if (givenUp !== undefined) {
    output.note([`${output.paint.red('error:')} ${givenUp} [MB_RANK_STUCK]`, ...savedBefore(how)].join('\n'));
    output.result({ ok: false, exit_code: EXIT.hang, error: { code: 'MB_RANK_STUCK', message: givenUp }, ...ending });
    return EXIT.hang;
  }
  if (stubborn.length > 0) output.warn(`rank ${formatRanks(stubborn)} did not end in time and was killed`);
  // Work of hours was not given up for lines that a full disk had no room for, but it is said.
  const complete = output.refused === undefined ? EXIT.ok : reportError(output.refused, false);
  const exitCode = signal === 'no' ? complete : signalExitCode(signal);
  output.result({
    ok: exitCode === EXIT.ok,
    exit_code: exitCode,
    ...(signal === 'no' ? {} : { signal, saved: how.saved?.folder ?? null }),
    ...ending,
  });
  output.note(formatEnding(how));
  return exitCode;
}

/** After a failure: how to go on, where there is something to go on from. */
function savedBefore(how: Ending): string[] {
  return how.saved === undefined ? [] : formatSaved(how).map((line) => `  ${line}`);
}

function isOwnFailure(cause: RootCause, exits: Supervision['exits']): boolean {
  const exit = exits.find(({ rank }) => rank === cause.rank);
  return exit !== undefined && !exit.ended && cause.code !== 'MB_PEER_LOST';
}

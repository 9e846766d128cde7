import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { takeEarlySignals } from '../../base/early-signals.js';
import { EXIT, MbridgeError, errorText } from '../../base/errors.js';
import { removeDeadClaim } from '../../base/folder-claim.js';
import { compiledFile } from '../../base/package-root.js';
import { nearAddress } from '../rendezvous/listen-address.js';
import { StoreServer } from '../rendezvous/store-server.js';
import type { Ending } from '../shared/ending-text.js';
import { flightSentence } from '../shared/flight-text.js';
import { ENV, EVENT, type WorkerRun } from '../shared/messages.js';
import { PrometheusEndpoint, type RunNumbers } from '../shared/prometheus-endpoint.js';
import { RankTimesFile } from '../shared/rank-times-file.js';
import { claimRunFolder, writeRunRecord, writeRunResult } from '../shared/run-folder.js';
import { withSavesOf } from '../shared/run-start.js';
import { StragglerNotice } from '../shared/straggler-notice.js';
import { StallNotice } from '../shared/stall-notice.js';
import { refuseSeveralLaunchers } from '../shared/starter.js';
import { listenForSignals, type StopSignal } from '../shared/stop-signals.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import { noAttempts, type Attempts } from './attempts.js';
import { conclude, type Attempted } from './conclude.js';
import { FlightReport, whoWaited } from './flight-report.js';
import { graceOf, worldSize, type LaunchJob, type LaunchResult } from './job.js';
import { KeptMemory } from './kept-memory.js';
import type { Leader } from './leader.js';
import {
  bothSignals,
  filesElsewhere,
  gatherNodes,
  othersListener,
  over,
  withOthersViews,
  withOthers,
  type StopRequest,
} from './other-nodes.js';
import { planProcesses, type ProcessPlan } from './process-plan.js';
import { goingOn, pause, stopText, type GoingOn } from './restarts.js';
import { RunOutput } from './run-output.js';
import { Supervisor, type Supervision } from './supervisor.js';
import { TeardownDeadline } from './teardown-deadline.js';
import { WorkerProcess, type WorkerListener } from './worker-process.js';

/**
 * Runs a job: one worker process a rank, until all have ended. Prints results on stdout and everything else, a failure
 * included, on stderr. Handles the signals that ask a run to stop while it runs: the first asks the workers to stop after
 * their step, the second kills them. Rejects only if the run could not be set up (MbridgeError).
 */
export async function launch(job: LaunchJob): Promise<LaunchResult> {
  takeEarlySignals();
  refuseSeveralLaunchers(process.env, job.nodes !== undefined);
  if (!existsSync(compiledFile('job/worker/main.js'))) {
    throw new MbridgeError('environment', 'MB_NOT_BUILT', `${compiledFile('job/worker/main.js')} is missing`, {
      hint: 'build the package first: npm run build',
    });
  }
  const { nodes } = job;
  // Of a run on several nodes, node 0 has the numbers.
  const endpoint = (nodes?.rank ?? 0) > 0 ? null : await PrometheusEndpoint.open(job.config);
  try {
    if (nodes === undefined) return await launchHere(job, null, endpoint);
    if (nodes.rank > 0) return await (await import('./follow.js')).follow(job, nodes, graceOf(job));
    const leader = await gatherNodes(job, nodes);
    try {
      return await launchHere(job, leader, endpoint);
    } catch (error) {
      const { code, message, exitCode } =
        error instanceof MbridgeError
          ? error
          : { code: 'MB_INTERNAL', message: String(error), exitCode: EXIT.internal };
      await leader.over(0, exitCode, errorText({ code, message: `node 0: ${message}` }));
      throw error;
    }
  } finally {
    endpoint?.close();
  }
}

async function launchHere(
  job: LaunchJob,
  leader: Leader | null,
  endpoint: PrometheusEndpoint | null,
): Promise<LaunchResult> {
  const ranks = Array.from({ length: job.nproc }, (_, rank) => rank);
  const { runDir, claim } = claimRunFolder(job.name, job.runDir ?? job.config.logger.log_dir ?? undefined, ranks);
  try {
    const { savesInRunFolder = false, workerModule = null, ...facts } = job;
    const config = withSavesOf(job.config, runDir, savesInRunFolder);
    const { name, argv, device, layout = {}, options } = facts;
    const worker = workerModule ?? job.program?.command[0] ?? null;
    const nproc = worldSize(job);
    const record = { name, argv, device, nproc, layout, config, savesInRunFolder, worker, options };
    await writeRunRecord(runDir, record);
    const ended = await superviseRuns({ ...job, config }, planProcesses(job, runDir), leader, endpoint?.numbers);
    writeRunResult(runDir, ended.result);
    return ended;
  } finally {
    claim.release();
  }
}

/** The run, and as often as it may begin again the runs that go on from it. */
async function superviseRuns(
  job: LaunchJob,
  plan: ProcessPlan,
  leader: Leader | null,
  numbers: RunNumbers | undefined,
): Promise<LaunchResult> {
  const memory = job.keepsCopies === true ? new KeptMemory(job.nproc) : null;
  const run = noAttempts(memory, numbers);
  try {
    for (let next: GoingOn = { config: job.config, from: 'start', step: 0 }; ;) {
      const { save } = next.config.checkpoint;
      let ended: Attempted;
      try {
        ended = await superviseRun({ ...job, config: next.config }, plan, run, leader, next);
      } finally {
        // A worker that had to be killed could not give its folder back.
        if (save !== null) removeDeadClaim(save, 'save');
      }
      run.number++;
      if (ended.again === undefined) return await over(leader, run.number, ended);
      numbers?.restarted();
      const listening = leader === null ? {} : { listen: bothSignals(leader) };
      const signal = run.signals.late ?? (await pause(ended.again.pauseS, listening));
      ({ next } = ended.again);
      if (signal !== null && next.unsaved !== true) return await over(leader, run.number, ended.again.stopped(signal));
      run.signals.late = signal;
    }
  } finally {
    run.signals.unlisten();
    memory?.close();
  }
}

async function superviseRun(
  job: LaunchJob,
  plan: ProcessPlan,
  attempts: Attempts,
  leader: Leader | null,
  from: GoingOn,
): Promise<Attempted> {
  const { runDir } = plan;
  const { memory } = attempts;
  const ranks = worldSize(job);
  const attempt = attempts.number;
  const stopped: StopRequest = { request: () => undefined };
  const output = new RunOutput({
    stdout: job.stdout ?? process.stdout,
    stderr: job.stderr ?? process.stderr,
    json: job.json ?? false,
    totalSteps: job.config.train.train_iters,
    device: job.device,
    nproc: ranks,
    ranks,
    validates: job.validates ?? false,
    consoleRanks: job.consoleRanks ?? [0],
    live: job.workerModule === undefined,
    onBrokenPipe: () => {
      stopped.request('SIGPIPE');
    },
  });
  if (attempt === 0) announce(job, runDir, output);
  const warn = output.warnOf(EVENT.warning);
  const workers: WorkerProcess[] = [];
  const flight = new FlightReport(workers);
  const stall = new StallNotice(ranks, (said, facts) => {
    const waits = flightSentence(flight.now());
    output.warnOf(EVENT.stall)(waits === undefined ? said : `${said}; ${waits}`, facts);
  });
  const rankTimes = new RankTimesFile(runDir, ranks, warn);
  const stragglers = new StragglerNotice(ranks, (text, slow) => {
    output.warn(text, { type: EVENT.straggler, ranks: slow });
    rankTimes.stragglers(slow);
  });
  const token = leader?.token ?? randomBytes(32).toString('hex');
  const host = leader?.address ?? '127.0.0.1';
  const store = await StoreServer.listen(
    { host, port: 0, token, worldSize: ranks },
    {
      onBegin: (rank, step, pace) => {
        teardown.alive();
        stall.progress(rank, step);
        if (pace === undefined) return;
        rankTimes.note(rank, step, pace);
        stragglers.note(rank, step, pace);
      },
    },
  );
  const hostOf = leader === null ? {} : { hostOf: leader.nodeOf.bind(leader) };
  const awaited = { worldSize: ranks, missing: () => store.missing, ...hostOf };
  const waiting = new WaitingNotice(awaited, output.warnOf(EVENT.waiting));
  const graceMs = graceOf(job);
  const onFail = (): void => {
    flight.failed();
    leader?.order(attempt, 'fail');
  };
  const supervisor = new Supervisor(workers, graceMs, onFail, from.unsaved);
  // Other programs may have ranks that are done long before the others.
  const teardown = new TeardownDeadline(
    ranks,
    job.workerModule === undefined ? job.config.dist.timeout_s : null,
    (text) => {
      supervisor.giveUp(text);
    },
  );
  const asked = { others: false };
  const held = from.unsaved === true ? from.step : null;
  stopped.request = (signal, from = 'here') => {
    const how = supervisor.request(signal, from === 'here');
    if (from === 'insisting') supervisor.killAll();
    else if (how === 'repeated') return;
    waiting.close();
    leader?.order(attempt, asked.others ? 'kill' : 'stop', signal, asked.others ? 0 : graceMs);
    asked.others = true;
    output.note(
      stopText(signal, how === 'killed', graceMs / 1000, workers.some(({ looping }) => looping) ? null : held),
    );
  };
  const { unlisten, late } = attempts.signals;
  attempts.signals = { unlisten: listenForSignals((signal) => stopped.request(signal)), late: null };
  unlisten();
  const killAll = (): void => {
    supervisor.killAll();
  };
  process.on('exit', killAll); // whatever ends this process
  const kept = memory === null ? {} : { memory: memory.begin(from.from === 'memory' ? from.step : null) };
  const run: WorkerRun = { config: job.config, device: job.device, options: job.options, again: attempt > 0, ...kept };
  try {
    const extraEnv: Record<string, string> = {
      MASTER_PORT: String(store.port),
      [ENV.store]: `${nearAddress(host)}:${store.port}`,
      [ENV.token]: token,
      [ENV.launcherPid]: String(process.pid),
    };
    const listener: WorkerListener = {
      event: (rank, event) => {
        teardown.alive();
        attempts.numbers?.add(event);
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
        attempts.saved = saved;
        attempts.numbers?.saved(saved);
        output.fact({ type: EVENT.saved, ...saved });
      },
      memory: (rank, pid, descriptor) => memory?.take(rank, pid, descriptor, warn),
      copied: (rank, step) => {
        const whole = memory?.copied(rank, step) ?? null;
        if (whole !== null) for (const worker of workers) worker.copied(whole);
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
    leader?.listen(othersListener({ listener, supervisor, stopped, runDir, warn }));
    await leader?.begin(attempt, { port: store.port, runDir, checkpoint: job.config.checkpoint });
    for (const rank of plan.ranks) {
      const worker = new WorkerProcess(rank, extraEnv, runDir, listener);
      worker.give(run);
      workers.push(worker);
    }
    if (late !== null) stopped.request(late);
    const supervision = withOthers(await supervisor.wait(), (await leader?.ended()) ?? [], supervisor, store.begun);
    stopped.request = (signal) => (attempts.signals.late ??= signal);
    const ending: Ending = {
      signal: signalOf(supervision),
      steps: output.steps ?? store.begun.reduce((most, step) => Math.max(most, step), 0),
      saved: attempts.saved,
      saveFolder: job.config.checkpoint.save,
      argv: job.argv,
      runDir,
      wallS: (performance.now() - attempts.started) / 1000,
      result: output.sent,
    };
    output.settle();
    const { saved } = attempts;
    if (supervision.exits.some(({ report }) => report?.code === 'MB_MEMORY_COPY')) memory?.begin(null);
    const whole = memory?.whole ?? null;
    const next = job.restarts && (await goingOn(job.restarts, job.config, saved, whole));
    const reached = Math.max(saved?.step ?? 0, whole ?? 0);
    attempts.idle = reached > attempts.before ? 1 : attempts.idle + 1;
    attempts.before = reached;
    return conclude({
      supervision,
      runDir,
      filesOf: (rank) => plan.ranks[rank]?.files ?? filesElsewhere(runDir, rank, leader?.nodeOf(rank)),
      output,
      waited: (exitCode) => {
        const views = withOthersViews(flight.views(), leader?.flights ?? []);
        const here = plan.ranks.map(({ rank }) => rank);
        return whoWaited(runDir, exitCode, supervision.exits, views, here);
      },
      how: ending,
      attempt: attempts.number + 1,
      idle: attempts.idle,
      restarts: job.restarts,
      next,
    });
  } finally {
    leader?.listen(undefined);
    killAll();
    process.off('exit', killAll);
    stall.close();
    waiting.close();
    teardown.close();
    output.close();
    await store.close();
    rankTimes.close();
    flight.close();
  }
}

/** A worker may have been signalled directly; all ranks then agreed to stop. */
function signalOf({ stop, exits }: Supervision): 'no' | StopSignal {
  return stop === 'no' ? (exits.find((exit) => exit.stopped !== 'no')?.stopped ?? 'no') : stop;
}

/** Says what runs, and where. */
function announce({ announce: say, config }: LaunchJob, runDir: string, output: RunOutput): void {
  const announced = say?.(runDir, config);
  if (announced === undefined) return;
  output.note(announced.lines.join('\n'));
  output.fact({ type: EVENT.start, run_dir: runDir, ...announced.facts });
}

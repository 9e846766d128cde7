import { hostname } from 'node:os';
import { EXIT, errorText } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import type { FlightRecord } from '../shared/flight-record.js';
import { ENV, type WorkerRun } from '../shared/messages.js';
import { createRunFolder } from '../shared/run-folder.js';
import { listenForSignals, signalExitCode, type StopSignal } from '../shared/stop-signals.js';
import type { WorkerExit } from '../shared/worker-exit.js';
import { briefRecord, FlightReport, whoWaited, type FlightViews } from './flight-report.js';
import { Follower } from './follower.js';
import type { LaunchJob, LaunchResult, NodePlace } from './job.js';
import { nodeFacts, nodeLost, nodeToken, toldExit, type Begin } from './node-messages.js';
import { planProcesses, type ProcessPlan } from './process-plan.js';
import { RunOutput } from './run-output.js';
import { Supervisor } from './supervisor.js';
import { WorkerProcess, type WorkerListener } from './worker-process.js';

/** How long node 0 may take to say how the run ended, after this node was told twice to stop. */
const INSISTED_MS = 5_000;

/**
 * Runs the processes of a node that is not the first, in every attempt of the run, and does as node 0's launcher says:
 * that one shows the run, and decides how it ends. Prints one line, and warnings of the ranks here.
 */
export async function follow(job: LaunchJob, place: NodePlace, graceMs: number): Promise<LaunchResult> {
  const stderr = job.stderr ?? process.stderr;
  const say = (text: string): void => void stderr.write(`${text}\n`);
  const warn = (text: string): void => {
    say(`warning: ${text}`);
  };
  const follower = await Follower.join(
    place,
    nodeToken(place, warn),
    nodeFacts(job),
    job.config.dist.timeout_s * 1000,
    warn,
  );
  const run = { plan: undefined as ProcessPlan | undefined, insisted: null as StopSignal | null };
  try {
    for (let attempt = 0; ; attempt++) {
      const begin = await heardOf(follower.begin(attempt), run.insisted);
      if (begin?.kind !== 'go') return end(begin, run, place, say);
      if (run.plan === undefined) {
        createRunFolder(job.name, begin.runDir, ranksOf(job, place));
        run.plan = planProcesses({ ...job, consoleRanks: [] }, begin.runDir);
        const ranks = formatRanks(run.plan.ranks.map(({ rank }) => rank));
        const of = job.nproc * place.count;
        say(
          `node ${place.rank} of ${place.count} (${hostname()}): rank ${ranks} of ${of}; node 0 (${place.host}) shows the run`,
        );
      }
      run.insisted = await runAttempt(job, place, run.plan, follower, attempt, begin, graceMs);
    }
  } finally {
    await follower.close();
  }
}

function ranksOf({ nproc }: LaunchJob, place: NodePlace): number[] {
  return Array.from({ length: nproc }, (_, local) => place.rank * nproc + local);
}

/** Undefined where node 0 is gone, or does not answer one who was told twice to stop. */
async function heardOf(begin: Promise<Begin | undefined>, insisted: StopSignal | null): Promise<Begin | undefined> {
  if (insisted === null) return begin;
  const late = new Promise<undefined>((resolve) => {
    setTimeout(() => {
      resolve(undefined);
    }, INSISTED_MS).unref();
  });
  return Promise.race([begin, late]);
}

function end(
  begin: Exclude<Begin, { kind: 'go' }> | undefined,
  run: { plan: ProcessPlan | undefined; insisted: StopSignal | null },
  place: NodePlace,
  say: (text: string) => void,
): LaunchResult {
  const { code, exitCode: lostCode, message, hint } = nodeLost(`node 0 (${place.host})`);
  const { exitCode, text } = begin ?? {
    exitCode: run.insisted === null ? lostCode : signalExitCode(run.insisted),
    text: errorText({ code, message, hint }),
  };
  if (text !== '') say(text);
  return {
    exitCode,
    runDir: run.plan?.runDir ?? '',
    result: { type: 'result', ok: exitCode === 0, exit_code: exitCode },
  };
}

/** Returns the signal with which this node was told for the second time to stop, if it was. */
async function runAttempt(
  job: LaunchJob,
  place: NodePlace,
  plan: ProcessPlan,
  follower: Follower,
  attempt: number,
  begin: Extract<Begin, { kind: 'go' }>,
  graceMs: number,
): Promise<StopSignal | null> {
  const ranks = job.nproc * place.count;
  const output = new RunOutput({
    ...{ stdout: job.stdout ?? process.stdout, stderr: job.stderr ?? process.stderr },
    ...{ json: false, live: false, consoleRanks: [], validates: false, device: job.device },
    ...{ totalSteps: job.config.train.train_iters, nproc: ranks, ranks, onBrokenPipe: () => undefined },
  });
  const workers: WorkerProcess[] = [];
  const flight = new FlightReport(workers);
  const supervisor = new Supervisor(workers, graceMs, () => {
    flight.failed();
    follower.tell({ kind: 'failed' });
  });
  const run = { over: false, asked: false, insisted: null as StopSignal | null };
  const unlisten = listenForSignals((signal) => {
    const how = supervisor.request(signal);
    if (how === 'repeated') return;
    if (run.asked) run.insisted = signal;
    follower.tell({ kind: 'signal', signal, insists: run.asked });
    run.asked = true;
  });
  follower.orders(attempt, (order, signal) => {
    if (run.over) return;
    if (order === 'stop') supervisor.request(signal, false);
    else if (order === 'kill') supervisor.killAll();
    else supervisor.fail();
  });
  follower.onLost(() => {
    if (!run.over) supervisor.giveUp(nodeLost(`node 0 (${place.host})`));
  });
  const killAll = (): void => {
    supervisor.killAll();
  };
  process.on('exit', killAll); // whatever ends this process
  const listener: WorkerListener = {
    event: (rank, event) => {
      follower.tell({ kind: 'event', rank, event });
    },
    log: output.log.bind(output),
    output: output.output.bind(output),
    saved: (saved) => {
      follower.tell({ kind: 'saved', saved });
    },
    step: () => 0,
    failed: () => {
      supervisor.fail();
    },
    done: (rank) => {
      follower.tell({ kind: 'done', rank });
      supervisor.done(rank);
    },
  };
  const config = { ...job.config, checkpoint: begin.checkpoint };
  const work: WorkerRun = { config, device: job.device, options: job.options };
  try {
    const extraEnv: Record<string, string> = {
      MASTER_PORT: String(begin.port),
      [ENV.store]: `${place.host}:${begin.port}`,
      [ENV.token]: follower.token,
      [ENV.launcherPid]: String(process.pid),
    };
    for (const rank of plan.ranks) {
      const worker = new WorkerProcess(rank, extraEnv, plan.runDir, listener);
      worker.give(work);
      workers.push(worker);
    }
    const supervision = await supervisor.wait();
    run.over = true;
    tellFlights(follower, plan, flight.views(), supervision.exits);
    follower.tell({ kind: 'ended', end: { ...supervision, exits: supervision.exits.map(toldExit) } });
    return run.insisted;
  } finally {
    run.over = true;
    killAll();
    process.off('exit', killAll);
    unlisten();
    output.close();
    flight.close();
  }
}

/** Node 0 says who waited in what, on all nodes; the files are each node's own. */
function tellFlights(
  follower: Follower,
  { runDir, ranks }: ProcessPlan,
  views: FlightViews,
  exits: readonly WorkerExit[],
): void {
  const hung = exits.some(({ report }) => report?.exit_code === EXIT.hang);
  const here = ranks.map(({ rank }) => rank);
  whoWaited(runDir, hung ? EXIT.hang : EXIT.worker, exits, views, here);
  // One by one: a message cannot be long.
  for (const rank of here) {
    const of = (records: readonly FlightRecord[]): FlightRecord[] =>
      records.filter((record) => record.rank === rank).map(briefRecord);
    const own = { atFailure: of(views.atFailure), atEnd: of(views.atEnd) };
    if (own.atEnd.length > 0) follower.tell({ kind: 'flight', views: own });
  }
}

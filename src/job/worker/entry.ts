import { constants } from 'node:os';
import { pathToFileURL } from 'node:url';
import type { Logger } from 'pino';
import type { Store } from '../rendezvous/store.js';
import type { RunConfig } from '../../config/schema.js';
import type { NativeBinding } from '../../engine/binding.js';
import { deviceIndexOf } from '../../engine/devices.js';
import { EXIT } from '../../base/errors.js';
import { WARN_LEVEL } from '../shared/console-lines.js';
import { ENV, SIGNAL_ECHO_MS, type StopSignal } from '../shared/messages.js';
import { compiledFile } from '../../base/package-root.js';
import { claimRunFolder, writeRunRecord } from '../shared/run-folder.js';
import { writeWorkerReport } from '../shared/worker-report.js';
import { consoleChannel, launcherChannel, receiveRun, type Channel } from './channel.js';
import type { RunWorker, WorkerContext } from './context.js';
import { detectStarter, parseEnvironment, type WorkerEnvironment } from './environment.js';
import { reportOf } from './failure.js';
import { makeLogger } from './logger.js';
import { MetricsFile } from './metrics-file.js';
import { openStore } from './rendezvous.js';
import { describeSharing, prepareSharedGpu } from './shared-gpu.js';

/** What a worker under our launcher is told by it; under torchrun, srun or mpirun every rank brings it. */
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
  /** Absolute path of another module that exports runWorker (tests), and what it is given as `context.options`. */
  workerModule?: string;
  options?: unknown;
}

/** What a failure report and a signal need to know at any time. */
interface WorkerState {
  rank: number;
  step: number;
  stop: 'no' | StopSignal;
  /** When it was first asked for, in performance.now(). */
  stopTime: number;
  /** False while the ranks are still finding each other: there is no step to finish then. */
  training: boolean;
  runDir: string | undefined;
  channel: Channel | undefined;
  log: Logger | undefined;
}

const INFO_LEVEL = 30;
const STOP_SIGNALS: readonly StopSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * The life of a worker process: ties itself to its parent, finds its place in the run, trains, and leaves in order.
 * Returns the exit code. A failure anywhere, also outside the call, becomes error.json, a line of the log, and the exit
 * of the process.
 */
export async function runAsWorker(external?: ExternalRun): Promise<number> {
  const state: WorkerState = {
    rank: Number(process.env['RANK']) || 0,
    step: 0,
    stop: 'no',
    stopTime: 0,
    training: false,
    runDir: external === undefined ? process.env[ENV.runDir] : undefined,
    channel: external === undefined ? launcherChannel() : undefined,
    log: undefined,
  };
  const fail = (error: unknown): never => leaveWithReport(error, state);
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  process.on('disconnect', () => process.exit(EXIT.worker)); // the launcher is gone
  // Nothing else may keep the process alive while runWorker waits on a promise of the native addon.
  const alive = setInterval(() => undefined, 60_000);
  try {
    const binding = await bindToParent();
    const { context, channel } = await enterRun(external, binding, state);
    state.training = true;
    if (state.stop === 'no') await (await loadRunWorker(external))(context);
    await context.store.close();
    await channel.done(state.stop);
    return state.stop === 'no' || external === undefined ? EXIT.ok : 128 + constants.signals[state.stop];
  } catch (error) {
    return fail(error);
  } finally {
    clearInterval(alive);
  }
}

/** First of all: no worker outlives the launcher, even one that is killed or a worker that is stuck in native code. */
async function bindToParent(): Promise<NativeBinding> {
  const { loadBinding } = await import('../../engine/load.js');
  const binding = loadBinding();
  const launcher = process.env[ENV.launcherPid];
  if (launcher !== undefined) binding.dieWithParent(Number(launcher));
  else if (detectStarter(process.env) === 'torchrun') binding.dieWithParent(process.ppid);
  return binding;
}

async function enterRun(
  external: ExternalRun | undefined,
  binding: NativeBinding,
  state: WorkerState,
): Promise<{ context: WorkerContext; channel: Channel }> {
  const environment = parseEnvironment(process.env);
  state.rank = environment.rank;
  const record = external ?? (await receiveRun());
  const { config, device, options } = record;
  const { ranks_per_gpu: ranksPerGpu } = config.dist;
  if (device === 'cuda') prepareSharedGpu(ranksPerGpu);
  state.channel ??= consoleChannel(environment.rank, {
    json: external?.json ?? false,
    totalSteps: config.train.train_iters,
    device,
  });
  const { channel } = state;
  listenForStop(state, channel, external !== undefined);
  const timeoutMs = config.dist.timeout_s * 1000;
  const store = await openStore(environment, timeoutMs);
  const runDir =
    external === undefined ? (state.runDir ?? '') : await agreeOnFolder(external, environment, store, timeoutMs);
  state.runDir = runDir;
  const consoleLevel = Number(process.env[ENV.consoleLevel] ?? (environment.rank === 0 ? INFO_LEVEL : WARN_LEVEL));
  const log = makeLogger(runDir, environment.rank, consoleLevel, (line) => {
    channel.log(line);
  });
  state.log = log;
  if (device === 'cuda' && ranksPerGpu > 1) log.info(describeSharing(ranksPerGpu));
  const metrics = new MetricsFile(runDir, log);
  const share = Math.max(1, Math.floor(binding.cpuCount() / environment.localWorldSize));
  const context: WorkerContext = {
    rank: environment.rank,
    localRank: environment.localRank,
    deviceIndex: deviceIndexOf(environment.localRank, ranksPerGpu),
    worldSize: environment.worldSize,
    localWorldSize: environment.localWorldSize,
    store,
    config,
    options,
    device,
    threads: environment.threads ?? share,
    runDir,
    log,
    emit: (event) => {
      channel.event(event);
      metrics.add(event);
    },
    progress: (step) => {
      state.step = step;
      channel.progress(step);
    },
    stopRequested: () => state.stop,
  };
  return { context, channel };
}

/** Rank 0 makes the run's folder, which is its own until the process ends, and the store tells the others which it is. */
async function agreeOnFolder(
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

/** The first request is noted for the training loop. Without a launcher that would kill, a second signal ends it here. */
function listenForStop(state: WorkerState, channel: Channel, alone: boolean): void {
  const note = (signal: StopSignal): void => {
    if (alone && !state.training) process.exit(128 + constants.signals[signal]);
    if (state.stop !== 'no') {
      const echo = signal === state.stop && performance.now() - state.stopTime < SIGNAL_ECHO_MS;
      if (alone && !echo) process.exit(128 + constants.signals[signal]);
      return;
    }
    state.stop = signal;
    state.stopTime = performance.now();
    state.log?.info(`${signal}: stopping after this step`);
  };
  channel.onStop(note);
  for (const signal of STOP_SIGNALS) {
    process.on(signal, () => {
      note(signal);
    });
  }
}

async function loadRunWorker(external: ExternalRun | undefined): Promise<RunWorker> {
  const file = external?.workerModule ?? process.env[ENV.workerModule] ?? compiledFile('train/run-worker.js');
  const module = (await import(pathToFileURL(file).href)) as { runWorker: RunWorker };
  return module.runWorker;
}

/** Synchronous, so that it also works as the last act of a process whose event loop is broken. */
function leaveWithReport(error: unknown, state: WorkerState): never {
  const report = reportOf(error, state.rank, state.step);
  try {
    if (state.runDir !== undefined) writeWorkerReport(state.runDir, report);
    const { rank, step, code, message, hint, stack } = report;
    state.log?.fatal({ step, code, ...(hint && { hint }), ...(stack && { stack }) }, message);
    // Our launcher reads the reports and shows the first rank's; elsewhere this line is all that the user sees.
    if (state.runDir === undefined || process.env[ENV.launcherPid] === undefined) {
      const advice = hint === undefined ? '' : `\n  ${hint}`;
      process.stderr.write(`[r${rank}] error: ${code}: ${stack ?? message}${advice}\n`);
    }
    state.channel?.failed();
  } catch (secondary) {
    process.stderr.write(`cannot write the failure report: ${secondary}\n${error}\n`);
  }
  process.exit(report.exit_code);
}

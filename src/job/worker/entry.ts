import { hostname } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { Logger } from '../../base/logger.js';
import { takeEarlySignals } from '../../base/early-signals.js';
import { EXIT, MbridgeError, errorText } from '../../base/errors.js';
import { compiledFile, packageVersion } from '../../base/package-root.js';
import type { NativeBinding } from '../../engine/binding.js';
import { deviceIndexOf } from '../../engine/devices.js';
import { WARN_LEVEL } from '../shared/console-lines.js';
import { decodeFlightRecord } from '../shared/flight-record.js';
import { ENV } from '../shared/messages.js';
import { MetricsFile } from '../shared/metrics-file.js';
import { PrometheusEndpoint } from '../shared/prometheus-endpoint.js';
import { detectStarter } from '../shared/starter.js';
import { signalExitCode, type StopSignal } from '../shared/stop-signals.js';
import { writeFlightRecord } from '../shared/run-folder.js';
import { writeWorkerReport } from '../shared/worker-report.js';
import { launcherChannel, receiveRun, type Channel } from './channel.js';
import { consoleChannel } from './console-channel.js';
import type { RunWorker, WorkerContext } from './context.js';
import { parseEnvironment } from './environment.js';
import { agreeOnRun, type ExternalRun } from './external.js';
import { reportOf } from './failure.js';
import { makeLogger } from './logger.js';
import { LauncherMemory } from './launcher-memory.js';
import { TensorboardFile } from './tensorboard-file.js';
import { openStore, type OpenedStore } from './rendezvous.js';
import { describeSharing, prepareSharedGpu } from './shared-gpu.js';
import { StopState } from './stop.js';

/** What a failure report and a signal need to know at any time. */
interface WorkerState {
  rank: number;
  step: number;
  /** Whether native code may be waiting for other ranks, so that an ordinary exit would wait too. */
  running: boolean;
  runDir: string | undefined;
  /** checkpoint.save, once it is known. */
  saveFolder: string | null;
  channel: Channel | undefined;
  log: Logger | undefined;
  opened: OpenedStore | undefined;
  binding: NativeBinding | undefined;
}

const INFO_LEVEL = 30;
const SLOW_NETWORK =
  'between nodes the CPU talks over TCP: to the same bits as on one node, but slowly; it is there to rehearse a run';

/**
 * The life of a worker process: ties itself to its parent, finds its place in the run, trains, and leaves in order.
 * Returns the exit code. A failure anywhere, also outside the call, becomes error.json, a line of the log, and the exit of
 * the process.
 * @param own what it runs, where that is no module's
 */
export async function runAsWorker(external?: ExternalRun, own?: RunWorker): Promise<number> {
  takeEarlySignals();
  const state: WorkerState = {
    rank: Number(process.env['RANK']) || 0,
    step: 0,
    running: false,
    runDir: external === undefined ? process.env[ENV.runDir] : undefined,
    saveFolder: null,
    channel: external === undefined ? launcherChannel() : undefined,
    log: undefined,
    opened: undefined,
    binding: undefined,
  };
  const fail = (error: unknown): never => leaveWithReport(error, state);
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  process.on('disconnect', () => process.exit(EXIT.worker)); // the launcher is gone
  // Nothing else may keep the process alive while runWorker waits on a promise of the native addon.
  const alive = setInterval(() => undefined, 60_000);
  const stop = new StopState({
    alone: external !== undefined,
    leave: (signal) => {
      void leaveAtOnce(signal, state);
    },
    say: (text) => state.log?.info(text),
    onLooping: () => state.channel?.looping(),
  });
  try {
    const binding = (state.binding = await bindToParent());
    const { context, channel } = await enterRun(external, binding, state, stop);
    const runWorker = own ?? (await loadRunWorker(external));
    state.running = true;
    await runWorker(context);
    await context.store.close();
    return await channel.done(stop.requested, false);
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
  const flight = process.env[ENV.flight] ?? '';
  if (/^\d+$/.test(flight)) binding.flightOpen(Number(flight));
  Reflect.deleteProperty(process.env, ENV.flight); // programs started from here have no such file
  return binding;
}

async function enterRun(
  external: ExternalRun | undefined,
  binding: NativeBinding,
  state: WorkerState,
  stop: StopState,
): Promise<{ context: WorkerContext; channel: Channel }> {
  const environment = parseEnvironment(process.env);
  state.rank = environment.rank;
  const record = external ?? (await receiveRun());
  const { device, options } = record;
  const { ranks_per_gpu: ranksPerGpu, timeout_s: timeoutS } = record.config.dist;
  if (device === 'cuda') prepareSharedGpu(ranksPerGpu);
  state.channel ??= consoleChannel({
    rank: environment.rank,
    json: external?.json ?? false,
    totalSteps: record.config.train.train_iters,
    device,
    ranks: environment.worldSize,
    validates: external?.validates ?? false,
    saveFolder: () => state.saveFolder,
    runDir: () => state.runDir,
    step: () => state.step,
    onClosedPipe: () => {
      stop.take('SIGPIPE', true);
    },
  });
  const { channel } = state;
  channel.onStop((signal) => {
    stop.take(signal, false);
  });
  // Our launcher serves it itself, over all that it starts again.
  const serves = external !== undefined && environment.rank === 0;
  const endpoint = serves ? await PrometheusEndpoint.open(record.config) : null;
  const timeoutMs = timeoutS * 1000;
  state.opened = await openStore(environment, timeoutMs, external?.json ?? false);
  const { store } = state.opened;
  void stop.watch(store);
  const { runDir, config, announced } =
    external === undefined
      ? { runDir: state.runDir ?? '', config: record.config, announced: undefined }
      : await agreeOnRun(external, environment, store, timeoutMs);
  state.runDir = runDir;
  state.opened.logsIn(runDir);
  state.saveFolder = config.checkpoint.save;
  if (announced !== undefined) channel.announce(runDir, announced);
  const consoleLevel = Number(process.env[ENV.consoleLevel] ?? (environment.rank === 0 ? INFO_LEVEL : WARN_LEVEL));
  const log = makeLogger(runDir, environment.rank, consoleLevel, (line) => {
    channel.log(line);
  });
  state.log = log;
  log.debug({ ...whereabouts(), device, local_rank: environment.localRank, argv: process.argv }, 'rank begins');
  if (device === 'cuda' && ranksPerGpu > 1) log.info(describeSharing(ranksPerGpu));
  if (device === 'cpu' && store.network !== null && environment.rank === 0) log.warn(SLOW_NETWORK);
  const warn = log.warn.bind(log);
  // What ranks of other nodes have, our launcher of node 0 writes.
  const writes = environment.store.served === 'by-rank-0' || environment.rank < environment.localWorldSize;
  const files = [
    ...(writes ? [new MetricsFile(runDir, warn)] : []),
    new TensorboardFile(config.logger.tensorboard_dir ?? runDir, warn),
  ];
  const share = Math.max(1, Math.floor(binding.cpuCount() / environment.localWorldSize));
  const context: WorkerContext = {
    rank: environment.rank,
    localRank: environment.localRank,
    deviceIndex: deviceIndexOf(environment.localRank, ranksPerGpu),
    worldSize: environment.worldSize,
    localWorldSize: environment.localWorldSize,
    store,
    memory: 'memory' in record ? new LauncherMemory(record.memory) : null,
    again: 'again' in record && record.again,
    config,
    options,
    device,
    threads: environment.threads ?? share,
    runDir,
    log,
    emit: (event) => {
      channel.event(event);
      endpoint?.numbers.add(event);
      for (const file of files) file.add(event);
    },
    progress: (step, pace) => {
      stop.looping();
      state.step = step;
      store.begin(step, pace);
    },
    saved: (checkpoint) => {
      channel.saved(checkpoint);
      endpoint?.numbers.saved(checkpoint);
    },
    stopRequested: () => {
      stop.looping();
      return stop.requested;
    },
    endsAfter: async (step) => {
      await hearAll();
      return stop.requested !== 'no' && (await store.pause(step, timeoutMs)) === step;
    },
  };
  return { context, channel };
}

/**
 * Lets everything that has arrived be heard, signals above all. A step runs inside the callback of the one before, so that
 * what came meanwhile is only polled in the turn after this one.
 */
async function hearAll(): Promise<void> {
  await setImmediate();
  await setImmediate();
}

async function loadRunWorker(external: ExternalRun | undefined): Promise<RunWorker> {
  const file = external?.workerModule ?? process.env[ENV.workerModule] ?? compiledFile('train/run-worker.js');
  const url = pathToFileURL(file);
  // The program itself waits for us at its top level, so that its own module would never be there: a second one is.
  if (external?.workerModule !== undefined) url.search = 'worker';
  const module = (await import(url.href).catch((error: unknown) => {
    throw notLoaded(file, error);
  })) as { runWorker?: RunWorker };
  if (typeof module.runWorker === 'function') return module.runWorker;
  throw new MbridgeError('usage', 'MB_WORKER_MODULE', `${file} exports no function runWorker`, {
    hint: 'export const runWorker: RunWorker = async (context) => { ... }',
  });
}

function notLoaded(file: string, error: unknown): unknown {
  if (!(error instanceof Error) || (error as NodeJS.ErrnoException).code !== 'ERR_UNKNOWN_FILE_EXTENSION') return error;
  return new MbridgeError('usage', 'MB_WORKER_MODULE', `${file} cannot be loaded by Node.js ${process.versions.node}`, {
    hint: 'start the program with `npx tsx`, compile it, or take Node.js 22.18 or newer, which runs TypeScript',
    cause: error,
  });
}

/**
 * Ends this process for a signal before it has anything to finish, or because it was the second. Where native code may
 * be waiting for other ranks, an exit would wait too; a signal that is not handled does not.
 */
async function leaveAtOnce(signal: StopSignal, { channel, running, step }: WorkerState): Promise<void> {
  const exitCode = (await channel?.done(signal, step === 0)) ?? signalExitCode(signal);
  if (running && process.env[ENV.launcherPid] === undefined) {
    process.emit('exit', exitCode); // what an exit would remove
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  } else process.exit(exitCode);
}

/** Synchronous, so that it also works as the last act of a process whose event loop is broken. */
function leaveWithReport(error: unknown, state: WorkerState): never {
  const report = reportOf(error, state.rank, state.step);
  const saved = state.channel?.failed(report) ?? [];
  const { rank, step, code, message, hint, stack } = report;
  state.log?.fatal({ step, code, ...(hint && { hint }), ...(stack && { stack }) }, message);
  let lost: unknown;
  try {
    if (state.runDir !== undefined) writeWorkerReport(state.runDir, report);
    leaveFlightRecord(report.exit_code, state);
  } catch (secondary) {
    lost = secondary;
  }
  let exitCode: number | undefined;
  // Our launcher shows the first rank's report; elsewhere these lines and rank 0's are all that the user sees.
  if (state.runDir === undefined || process.env[ENV.launcherPid] === undefined) {
    if (lost !== undefined) tell(`[r${rank}] the failure report could not be written: ${lost}`);
    exitCode = state.opened?.fail(report, state.runDir, saved);
    if (exitCode === undefined) tell(`[r${rank}] ${errorText({ code, message: stack ?? message, hint })}`);
  }
  process.exit(exitCode ?? report.exit_code);
}

/** What tells later where a rank ran, and as what. */
function whereabouts(): Readonly<Record<string, unknown>> {
  const versions = { mbridge: packageVersion(), node: process.versions.node };
  return { host: hostname(), pid: process.pid, versions };
}

/** Our launcher writes it; elsewhere each rank that can. */
function leaveFlightRecord(exitCode: number, { runDir, rank, binding }: WorkerState): void {
  const waited = exitCode === EXIT.hang || exitCode === EXIT.worker;
  if (!waited || runDir === undefined || binding === undefined || process.env[ENV.launcherPid] !== undefined) return;
  const record = decodeFlightRecord(binding.flightRecord(), rank, process.hrtime.bigint());
  if (record !== undefined) writeFlightRecord(runDir, record);
}

function tell(text: string): void {
  try {
    process.stderr.write(`${text}\n`);
  } catch {
    // there is nowhere left to say it
  }
}

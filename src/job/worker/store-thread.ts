// Body of the thread in which rank 0 serves the rendezvous store when no launcher of ours does. It also says what that
// launcher would say: which ranks are waited for, that nothing moves, and at the end which rank was the first to fail.
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { MbridgeError } from '../../base/errors.js';
import { StoreServer } from '../rendezvous/store-server.js';
import { eventJson, outputLine } from '../../outputs/line.js';
import { paintFor } from '../shared/console-lines.js';
import { errorFacts } from '../shared/error-facts.js';
import { formatFailure } from '../shared/failure-text.js';
import { findRootCause, type RootCause } from '../shared/root-cause.js';
import { LOG_FILE, STDERR_FILE, rankFolder, writeRunResult } from '../shared/run-folder.js';
import { RankTimesFile } from '../shared/rank-times-file.js';
import { StragglerNotice } from '../shared/straggler-notice.js';
import { EVENT, type WorkerEvent } from '../shared/messages.js';
import { StallNotice } from '../shared/stall-notice.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import type { WorkerExit } from '../shared/worker-exit.js';
import { nowMs, type WorkerReport } from '../shared/worker-report.js';
import {
  FAILED_KEY,
  type StoreThreadData,
  type StoreThreadFolder,
  type StoreThreadMessage,
  type StoreThreadOrder,
} from './store-thread-messages.js';

const [STDOUT, STDERR] = [1, 2];
/** How long the other ranks may take to say what they saw. */
const PEERS_END_MS = 2_000;
const LOOK_MS = 20;

function print(descriptor: number, text: string): void {
  try {
    writeSync(descriptor, `${text}\n`);
  } catch {
    // there is nowhere left to say it
  }
}

function warn(text: string): void {
  print(STDERR, `[r0] warning: ${text}`);
}

/** Says it, and with `json` as an event too. */
function tell(event: WorkerEvent & { readonly text: string }, json: boolean): void {
  warn(event.text);
  if (json) print(STDOUT, eventJson(event));
}

/** What is known of each rank's end: its own report, or that its connection ended. */
function exitsOf(server: StoreServer, own: WorkerReport, worldSize: number): WorkerExit[] {
  return Array.from({ length: worldSize }, (_, rank): WorkerExit => {
    const text = server.value(`${FAILED_KEY}${rank}`)?.toString();
    const report = rank === own.rank ? own : text === undefined ? undefined : (JSON.parse(text) as WorkerReport);
    const lost = server.lost.includes(rank);
    return {
      rank,
      timeMs: nowMs(),
      code: report?.exit_code ?? null,
      signal: null,
      done: server.left.includes(rank),
      stopped: 'no',
      ended: report === undefined && !lost,
      ...(report === undefined && lost ? { lost } : {}),
      step: report?.step ?? server.begun[rank] ?? 0,
      ...(report === undefined ? {} : { report }),
      stderrTail: [],
    };
  });
}

/** As the launcher does: the cause on stderr, and the run's result in its folder and for `--json`. */
function conclude(cause: RootCause, { runDir, saved }: StoreThreadOrder, json: boolean): void {
  const folder = runDir === undefined ? undefined : rankFolder(runDir, cause.rank);
  const files = folder === undefined ? undefined : { log: join(folder, LOG_FILE), stderr: join(folder, STDERR_FILE) };
  print(STDERR, [formatFailure(cause, files, paintFor({})), ...saved].join('\n'));
  const error = errorFacts(cause, cause.exitCode);
  const wall_s = Math.round(performance.now()) / 1000;
  const ending = { ok: false, exit_code: cause.exitCode, error, run_dir: runDir ?? null, wall_s };
  if (runDir !== undefined) writeRunResult(runDir, { type: 'result', ...ending });
  if (json) print(STDOUT, outputLine('result', ending).trimEnd());
}

/** Returns the inode of the socket. */
async function serve({ store, hosts, hint, json }: StoreThreadData): Promise<number> {
  const { worldSize } = store;
  const stall = new StallNotice(worldSize, (text, facts) => {
    tell({ type: EVENT.stall, ...facts, text }, json);
  });
  let rankTimes: RankTimesFile | undefined;
  const stragglers = new StragglerNotice(worldSize, (text, slow) => {
    warn(text);
    rankTimes?.stragglers(slow);
    if (json) print(STDOUT, outputLine('straggler', { ranks: slow }).trimEnd());
  });
  const server = await StoreServer.listen(store, {
    onBegin: (rank, step, pace) => {
      stall.progress(rank, step);
      if (pace === undefined) return;
      rankTimes?.note(rank, step, pace);
      stragglers.note(rank, step, pace);
    },
    onLeave: (rank) => {
      stall.done(rank);
    },
  });
  const awaited = { worldSize, missing: () => server.missing, hostOf: (rank: number) => hosts[rank], hint };
  new WaitingNotice(awaited, (text, facts) => {
    tell({ type: EVENT.waiting, ...facts, text }, json);
  });
  // The server does not keep a thread alive by itself; this does, until the process ends.
  parentPort?.on('message', (order: StoreThreadOrder | StoreThreadFolder) => {
    if (!('said' in order)) {
      rankTimes = new RankTimesFile(order.runDir, worldSize, warn);
      return;
    }
    const until = performance.now() + PEERS_END_MS;
    const look = setInterval(() => {
      const exits = exitsOf(server, order.report, worldSize);
      const open = exits.some(({ report, done, ended }) => report === undefined && !done && ended);
      if (open && performance.now() < until) return;
      clearInterval(look);
      const cause = findRootCause(exits);
      if (cause !== undefined) conclude(cause, order, json);
      Atomics.store(order.said, 1, cause?.exitCode ?? -1);
      Atomics.store(order.said, 0, 1);
      Atomics.notify(order.said, 0);
    }, LOOK_MS);
  });
  return server.inode;
}

const answer = (message: StoreThreadMessage): void => {
  parentPort?.postMessage(message);
};

try {
  answer({ inode: await serve(workerData as StoreThreadData) });
} catch (error) {
  if (!(error instanceof MbridgeError)) throw error;
  const { code, message, hint } = error;
  answer({ code, message, hint });
}

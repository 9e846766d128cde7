/** Tests of one's own distributed code: ranks as threads of the test's process. */
import { randomBytes } from 'node:crypto';
import { isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { EXIT, MbridgeError, type ExitKind } from '../base/errors.js';
import { compiledFile } from '../base/package-root.js';
import { StoreServer } from '../job/rendezvous/store-server.js';
import { findRootCause, type RootCause } from '../job/shared/root-cause.js';
import type { WorkerExit } from '../job/shared/worker-exit.js';
import { nowMs } from '../job/shared/worker-report.js';
import { reportOf } from '../job/worker/failure.js';
import type { RankThreadData, RankThreadMessage } from './rank-thread.js';

export type { RankContext, RankFunction } from './rank-context.js';

export interface RunRanksOptions {
  /** The function that the module exports; `runRank` by default. */
  readonly export?: string;
  /** For every rank's context: anything that can be cloned. */
  readonly options?: unknown;
  /** CPU threads of each rank's device; 1 by default. */
  readonly threads?: number;
  /** Seconds until a collective or a rendezvous counts as hung; 20 by default. Give less than the test may take. */
  readonly timeoutSeconds?: number;
}

const MOST_RANKS = 64;
/** Exit code of a thread that had nothing left to do while its function was not done. */
const UNSETTLED = 13;
const UNSETTLED_TEXT = 'its function waits for a promise that nothing is left to settle';
/** How long a thread is left to load its modules before it is ended all the same. */
const LOADS_MS = 10_000;
/** How long the others may take to say what they saw, before they are ended. */
const OTHERS_END_MS = 300;

/**
 * Runs `worldSize` ranks as threads of this process, on the CPU, and resolves with what each returned, by rank: copies, as
 * by structuredClone. When it settles, all threads have ended and nothing is left of them.
 * @param module absolute path or URL of the module, `new URL('./layer.js', import.meta.url)`; threads load it anew
 * @throws MbridgeError that names the rank which failed first, with its code and as cause its stack; the others are ended
 * within a second. MB_WORKER_CRASHED for a thread that ended by itself, MB_RANKS_ARGUMENT for what cannot be run
 */
export async function runRanks<Value = unknown>(
  worldSize: number,
  module: string | URL,
  options: RunRanksOptions = {},
): Promise<Value[]> {
  if (!Number.isSafeInteger(worldSize) || worldSize < 1 || worldSize > MOST_RANKS) {
    throw argumentError(`${worldSize} ranks`, `give 1 to ${MOST_RANKS}`);
  }
  const token = randomBytes(16).toString('hex');
  const host = '127.0.0.1';
  const server = await StoreServer.listen({ host, port: 0, token, worldSize });
  try {
    const shared = {
      worldSize,
      store: { host, port: server.port, token },
      module: urlOf(module),
      name: options.export ?? 'runRank',
      options: options.options,
      threads: options.threads ?? 1,
      timeoutSeconds: options.timeoutSeconds ?? 20,
    };
    const ranks = Array.from({ length: worldSize }, (_, rank) => new RankThread({ rank, ...shared }));
    let timer: NodeJS.Timeout | undefined;
    const onFailure = (): void => {
      timer ??= setTimeout(() => ranks.forEach((rank) => void rank.end()), OTHERS_END_MS);
    };
    const exits = await Promise.all(ranks.map((rank) => rank.exit(onFailure)));
    clearTimeout(timer);
    const cause = findRootCause(exits);
    if (cause !== undefined) throw failureOf(cause);
    return ranks.map(({ value }) => value as Value);
  } finally {
    await server.close();
  }
}

/** One thread, from its start to its end. */
class RankThread {
  value: unknown;
  readonly #rank: number;
  readonly #worker: Worker;
  readonly #loaded: Promise<void>;
  #done = false;
  #ended = false;
  /** The code that it has ended itself with. */
  #code: number | undefined;
  #report: WorkerExit['report'];

  constructor(data: RankThreadData) {
    this.#rank = data.rank;
    this.#worker = new Worker(compiledFile('testing/rank-thread.js'), { workerData: data });
    this.#loaded = new Promise((resolve) => {
      this.#worker.on('message', ({ kind }: RankThreadMessage) => {
        if (kind === 'loaded') resolve();
      });
      setTimeout(resolve, LOADS_MS).unref();
    });
  }

  /** Resolves when the thread has ended. @param onFailure called once it is known that the rank failed */
  exit(onFailure: () => void): Promise<WorkerExit> {
    return new Promise((resolve) => {
      this.#worker.on('message', (message: RankThreadMessage) => {
        this.#take(message);
        if (this.#report !== undefined) onFailure();
      });
      // What its function could not catch.
      this.#worker.on('error', (error) => {
        this.#report = reportOf(error, this.#rank, 0);
        onFailure();
      });
      this.#worker.on('exit', (code) => {
        if (!this.#done) onFailure();
        if (code === UNSETTLED) {
          this.#report ??= reportOf(new MbridgeError('worker', 'MB_WORKER_CRASHED', UNSETTLED_TEXT), this.#rank, 0);
        }
        resolve({
          rank: this.#rank,
          timeMs: nowMs(),
          code: this.#code ?? code,
          signal: null,
          done: this.#done,
          stopped: 'no',
          ended: this.#ended && this.#code === undefined,
          step: 0,
          ...(this.#report && { report: this.#report }),
          stderrTail: [],
        });
      });
    });
  }

  /** Ends it, but not while it reads modules: Node.js would leave their files open. */
  async end(): Promise<void> {
    await this.#loaded;
    this.#ended = true;
    await this.#worker.terminate();
  }

  #take(message: RankThreadMessage): void {
    switch (message.kind) {
      case 'loaded':
        return;
      case 'done':
        this.value = message.value;
        this.#done = true;
        return;
      case 'failed':
        this.#report = message.report;
        return;
      case 'exits':
        this.#code = message.code;
    }
  }
}

function failureOf({ rank, code, exitCode, message, hint, stack, others }: RootCause): MbridgeError {
  const [kind] = Object.entries(EXIT).find(([, value]) => value === exitCode) as [ExitKind, number];
  const named = new RegExp(`^rank ${rank}\\b`).test(message) ? message : `rank ${rank}: ${message}`;
  return new MbridgeError(kind, code, others === '' ? named : `${named} (${others})`, {
    ...(hint === undefined ? {} : { hint }),
    ...(stack === undefined ? {} : { cause: Object.assign(new Error(message), { stack }) }),
    details: { rank },
  });
}

function urlOf(module: string | URL): string {
  const text = String(module);
  if (text.startsWith('file:')) return text;
  if (isAbsolute(text)) return pathToFileURL(text).href;
  throw argumentError(`module ${text}`, "give an absolute path, or new URL('./module.js', import.meta.url)");
}

function argumentError(found: string, hint: string): MbridgeError {
  return new MbridgeError('usage', 'MB_RANKS_ARGUMENT', `runRanks: ${found}`, { hint });
}

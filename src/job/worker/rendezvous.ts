import { Worker } from 'node:worker_threads';
import { MbridgeError } from '../../base/errors.js';
import { compiledFile } from '../../base/package-root.js';
import { connectStore } from '../rendezvous/store-client.js';
import type { Store } from '../rendezvous/store.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import type { WorkerReport } from '../shared/worker-report.js';
import type { WorkerEnvironment } from './environment.js';
import {
  FAILED_KEY,
  type StoreThreadData,
  type StoreThreadMessage,
  type StoreThreadOrder,
} from './store-thread-messages.js';

/** How long rank 0's last words may take: the thread waits for what other ranks report. */
const LAST_WORDS_MS = 5_000;

export interface OpenedStore {
  readonly store: Store;
  /**
   * The last act of a failing rank that no launcher of ours watches: tells the others why. Rank 0 waits for what they
   * tell, and shows the first cause.
   */
  fail(report: WorkerReport, runDir: string | undefined): void;
}

/**
 * Connects to the run's store. Where no launcher of ours serves it, rank 0 does, in a thread of its own: its main thread
 * may be inside a collective with ranks that have no more need of the store, while others still have.
 */
export async function openStore(
  environment: WorkerEnvironment,
  timeoutMs: number,
  json: boolean,
): Promise<OpenedStore> {
  const { rank, worldSize, token } = environment;
  const serves = environment.store.served === 'by-rank-0' && rank === 0;
  const thread = serves ? await serveStore(environment, json) : undefined;
  const { host, port } = serves ? { ...environment.store, host: '127.0.0.1' } : environment.store;
  const notice = new WaitingNotice(
    { worldSize, missing: () => [0], hostOf: () => `${host}, to serve the store on port ${port}` },
    (text) => void process.stderr.write(`[r${rank}] ${text}\n`),
  );
  try {
    const store = await connectStore({ host, port, token, rank, worldSize, timeoutMs });
    return {
      store,
      fail: (report, runDir) => {
        if (thread !== undefined) lastWords(thread, { report, runDir });
        else store.set(`${FAILED_KEY}${rank}`, Buffer.from(JSON.stringify(report))).catch(() => undefined);
      },
    };
  } finally {
    notice.close();
  }
}

/** Blocks: whoever calls it is about to end the process. */
function lastWords(thread: Worker, order: Omit<StoreThreadOrder, 'said'>): void {
  const said = new Int32Array(new SharedArrayBuffer(4));
  thread.postMessage({ ...order, said } satisfies StoreThreadOrder);
  Atomics.wait(said, 0, 0, LAST_WORDS_MS);
}

async function serveStore(environment: WorkerEnvironment, json: boolean): Promise<Worker> {
  const { worldSize, localWorldSize, store, token, hosts, hint } = environment;
  const host = localWorldSize === worldSize ? '127.0.0.1' : '::';
  const data: StoreThreadData = { host, port: store.port, token, worldSize, hosts, hint, json };
  const thread = new Worker(compiledFile('job/worker/store-thread.js'), { workerData: data });
  const problem = await new Promise<string | undefined>((resolve, reject) => {
    thread.once('message', (message: StoreThreadMessage) => {
      resolve(message.problem);
    });
    thread.once('error', reject);
  });
  thread.unref();
  if (problem === undefined) return thread;
  throw new MbridgeError('environment', 'MB_STORE_PORT', `rank 0 cannot serve the rendezvous store: ${problem}`, {
    hint: 'set MASTER_PORT or MBRIDGE_STORE_PORT to a free port on every rank',
  });
}

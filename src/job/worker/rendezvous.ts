import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { MbridgeError } from '../../base/errors.js';
import { compiledFile } from '../../base/package-root.js';
import { listenAddress, nearAddress } from '../rendezvous/listen-address.js';
import { privateFolder, removeSocket } from '../rendezvous/private-socket.js';
import { connectStore } from '../rendezvous/store-client.js';
import { weakToken, type StoreEndpoint } from '../rendezvous/store-protocol.js';
import type { Store } from '../rendezvous/store.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import type { WorkerReport } from '../shared/worker-report.js';
import type { WorkerEnvironment } from './environment.js';
import {
  FAILED_KEY,
  type StoreThreadData,
  type StoreThreadFolder,
  type StoreThreadMessage,
  type StoreThreadOrder,
} from './store-thread-messages.js';

/** How long rank 0's last words may take: the thread waits for what other ranks report. */
const LAST_WORDS_MS = 5_000;

export interface OpenedStore {
  readonly store: Store;
  /** Tells whoever serves the store here where the run's folder is. */
  logsIn(runDir: string): void;
  /**
   * The last act of a failing rank that no launcher of ours watches: tells the others why. Rank 0 waits for what they
   * tell, shows the first cause, and returns its exit code; undefined on the others, and where it could not.
   * @param saved what of the work is saved, for rank 0 to say
   */
  fail(report: WorkerReport, runDir: string | undefined, saved: readonly string[]): number | undefined;
}

/** Where a rank finds the store, and the thread that serves it, on the rank that does. */
interface Place {
  readonly endpoint: StoreEndpoint;
  readonly thread?: Worker;
  readonly check?: () => void;
}

/**
 * Connects to the run's store. Where no launcher of ours serves it, rank 0 does, in a thread of its own: its main thread
 * may be inside a collective with ranks that have no more need of the store, while others still have. On one node the
 * ranks meet at a socket in a folder of this user's alone. A rank that waits for rank 0 says so from time to time.
 */
export async function openStore(
  environment: WorkerEnvironment,
  timeoutMs: number,
  json: boolean,
): Promise<OpenedStore> {
  const { rank, worldSize, token, node } = environment;
  const { endpoint, thread, check } = await findPlace(environment, json);
  const where = 'socket' in endpoint ? endpoint.socket : `${endpoint.host}:${endpoint.port}`;
  const notice = new WaitingNotice(
    { worldSize, missing: () => [0], hint: `it serves the store at ${where}` },
    (text) => void process.stderr.write(`[r${rank}] warning: ${text}\n`),
  );
  try {
    const found = {
      ...{ token, rank, worldSize, timeoutMs },
      ...(check === undefined ? {} : { check }),
      ...(node === null ? {} : { node }),
    };
    const store = await connectStore({ ...endpoint, ...found });
    return {
      store,
      logsIn: (runDir) => {
        thread?.postMessage({ runDir } satisfies StoreThreadFolder);
      },
      fail: (report, runDir, saved) => {
        if (thread !== undefined) return lastWords(thread, { report, runDir, saved });
        store.set(`${FAILED_KEY}${rank}`, Buffer.from(JSON.stringify(report))).catch(() => undefined);
        return undefined;
      },
    };
  } finally {
    notice.close();
  }
}

async function findPlace(environment: WorkerEnvironment, json: boolean): Promise<Place> {
  const { rank, store, token } = environment;
  const { host, port } = store;
  if (store.served === 'by-launcher') return { endpoint: { host, port } };
  if (store.job !== null) {
    const name = `${createHash('sha256').update(store.job).digest('hex').slice(0, 24)}.sock`;
    const endpoint = { socket: join(privateFolder(), name) };
    const served = rank === 0 ? await serveStore(environment, endpoint, json) : undefined;
    // What is removed as soon as all ranks are there, for a run that ends before that.
    process.on('exit', () => {
      removeSocket(endpoint.socket, served?.inode ?? 0);
    });
    const check = (): void => void privateFolder();
    return { endpoint, check, ...(served === undefined ? {} : { thread: served.thread }) };
  }
  if (rank !== 0) return { endpoint: { host, port } };
  const weak = weakToken(token);
  if (weak !== undefined) process.stderr.write(`[r0] warning: ${weak}\n`);
  const address = await listenAddress(host);
  const { thread } = await serveStore(environment, { host: address, port }, json);
  return { endpoint: { host: nearAddress(address), port }, thread };
}

/** Blocks: whoever calls it is about to end the process. Returns the exit code of the cause that was said. */
function lastWords(thread: Worker, order: Omit<StoreThreadOrder, 'said'>): number | undefined {
  const said = new Int32Array(new SharedArrayBuffer(8));
  thread.postMessage({ ...order, said } satisfies StoreThreadOrder);
  Atomics.wait(said, 0, 0, LAST_WORDS_MS);
  const [done = 0, exitCode = -1] = said;
  return done === 0 || exitCode < 0 ? undefined : exitCode;
}

/** `inode` is that of the socket; 0 for a port. */
async function serveStore(
  { worldSize, token, hosts, hint }: WorkerEnvironment,
  endpoint: StoreEndpoint,
  json: boolean,
): Promise<{ thread: Worker; inode: number }> {
  const data: StoreThreadData = { store: { ...endpoint, token, worldSize }, hosts, hint, json };
  const thread = new Worker(compiledFile('job/worker/store-thread.js'), { workerData: data });
  const answer = await new Promise<StoreThreadMessage>((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
  });
  thread.unref();
  if (!('code' in answer)) return { thread, inode: answer.inode };
  const { code, message, hint: advice } = answer;
  throw new MbridgeError('environment', code, `rank 0: ${message}`, advice === undefined ? {} : { hint: advice });
}

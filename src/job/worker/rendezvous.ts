import { Worker } from 'node:worker_threads';
import { connectStore } from '../rendezvous/store-client.js';
import type { Store } from '../rendezvous/store.js';
import { MbridgeError } from '../../base/errors.js';
import { compiledFile } from '../../base/package-root.js';
import type { WorkerEnvironment } from './environment.js';
import type { StoreThreadData, StoreThreadMessage } from '../rendezvous/store-thread.js';

/**
 * Connects to the run's store. Where no launcher of ours serves it, rank 0 does, in a thread of its own: its main thread
 * may be inside a collective with ranks that have no more need of the store, while others still have.
 */
export async function openStore(environment: WorkerEnvironment, timeoutMs: number): Promise<Store> {
  const { rank, worldSize, store, token } = environment;
  const serves = store.served === 'by-rank-0' && rank === 0;
  if (serves) await serveStore(environment);
  return connectStore({
    host: serves ? '127.0.0.1' : store.host,
    port: store.port,
    token,
    rank,
    worldSize,
    timeoutMs,
  });
}

async function serveStore(environment: WorkerEnvironment): Promise<void> {
  const { worldSize, localWorldSize, store, token } = environment;
  const host = localWorldSize === worldSize ? '127.0.0.1' : '0.0.0.0';
  const data: StoreThreadData = { host, port: store.port, token, worldSize };
  const thread = new Worker(compiledFile('job/rendezvous/store-thread.js'), { workerData: data });
  const problem = await new Promise<string | undefined>((resolve, reject) => {
    thread.once('message', (message: StoreThreadMessage) => {
      resolve(message.problem);
    });
    thread.once('error', reject);
  });
  thread.unref();
  if (problem === undefined) return;
  throw new MbridgeError('environment', 'MB_STORE_PORT', `rank 0 cannot serve the rendezvous store: ${problem}`, {
    hint: 'set MASTER_PORT or MBRIDGE_STORE_PORT to a free port on every rank',
  });
}

// Body of the thread in which rank 0 serves the rendezvous store when no launcher of ours does.
import { parentPort, workerData } from 'node:worker_threads';
import { StoreServer, type StoreServerOptions } from './store-server.js';

export type StoreThreadData = StoreServerOptions;

/** Sent once: the server listens, or why not. */
export interface StoreThreadMessage {
  problem?: string;
}

const answer = (message: StoreThreadMessage): void => {
  parentPort?.postMessage(message);
};

try {
  await StoreServer.listen(workerData as StoreThreadData);
  // The server does not keep a thread alive by itself; this does, until the process ends.
  parentPort?.on('message', () => undefined);
  answer({});
} catch (error) {
  answer({ problem: error instanceof Error ? error.message : String(error) });
}

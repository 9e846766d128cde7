// Body of the thread in which rank 0 serves the rendezvous store when no launcher of ours does.
import { parentPort, workerData } from 'node:worker_threads';
import { MbridgeError } from '../../base/errors.js';
import { StoreServer, type StoreServerOptions } from './store-server.js';

export type StoreThreadData = StoreServerOptions;

/** Sent once: the server listens (`inode`: see StoreServer), or why not. */
export type StoreThreadMessage = { inode: number } | { code: string; message: string; hint?: string | undefined };

const answer = (message: StoreThreadMessage): void => {
  parentPort?.postMessage(message);
};

try {
  const { inode } = await StoreServer.listen(workerData as StoreThreadData);
  // The server does not keep a thread alive by itself; this does, until the process ends.
  parentPort?.on('message', () => undefined);
  answer({ inode });
} catch (error) {
  if (!(error instanceof MbridgeError)) throw error;
  const { code, message, hint } = error;
  answer({ code, message, hint });
}

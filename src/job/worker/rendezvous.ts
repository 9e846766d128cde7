import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { MbridgeError } from '../../base/errors.js';
import { compiledFile } from '../../base/package-root.js';
import { listenAddress } from '../rendezvous/listen-address.js';
import { privateFolder, removeSocket } from '../rendezvous/private-socket.js';
import { connectStore } from '../rendezvous/store-client.js';
import type { StoreEndpoint } from '../rendezvous/store-protocol.js';
import type { StoreThreadData, StoreThreadMessage } from '../rendezvous/store-thread.js';
import type { Store } from '../rendezvous/store.js';
import type { WorkerEnvironment } from './environment.js';

/** Characters of a token that stands against guesses over a network: 64 bits in hexadecimal. */
const STRONG_TOKEN = 16;

/**
 * Connects to the run's store. Where no launcher of ours serves it, rank 0 does, in a thread of its own: its main thread
 * may be inside a collective with ranks that have no more need of the store, while others still have. On one node the
 * ranks meet at a socket in a folder of this user's alone.
 */
export async function openStore(environment: WorkerEnvironment, timeoutMs: number): Promise<Store> {
  const { rank, worldSize, store, token } = environment;
  const { host, port } = store;
  const who = { token, rank, worldSize, timeoutMs };
  if (store.served === 'by-launcher') return connectStore({ host, port, ...who });
  if (store.job !== null) {
    const name = `${createHash('sha256').update(store.job).digest('hex').slice(0, 24)}.sock`;
    const socket = join(privateFolder(), name);
    // What is removed as soon as all ranks are there, for a run that ends before that.
    const inode = rank === 0 ? await serveStore(environment, { socket }) : 0;
    process.on('exit', () => {
      removeSocket(socket, inode);
    });
    return connectStore({ socket, ...who, check: () => void privateFolder() });
  }
  if (rank !== 0) return connectStore({ host, port, ...who });
  if (token.length < STRONG_TOKEN) {
    process.stderr.write(
      `[r0] warning: MBRIDGE_TOKEN has ${token.length} characters; over a network take one that cannot be guessed: openssl rand -hex 16\n`,
    );
  }
  const address = await listenAddress(host);
  await serveStore(environment, { host: address, port });
  const near = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address;
  return connectStore({ host: near, port, ...who });
}

/** Returns the inode of the socket; 0 for a port. */
async function serveStore({ worldSize, token }: WorkerEnvironment, endpoint: StoreEndpoint): Promise<number> {
  const data: StoreThreadData = { ...endpoint, token, worldSize };
  const thread = new Worker(compiledFile('job/rendezvous/store-thread.js'), { workerData: data });
  const answer = await new Promise<StoreThreadMessage>((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
  });
  thread.unref();
  if (!('code' in answer)) return answer.inode;
  const { code, message, hint } = answer;
  throw new MbridgeError('environment', code, `rank 0: ${message}`, hint === undefined ? {} : { hint });
}

// Body of the thread that is a rank of runRanks.
import { parentPort, workerData } from 'node:worker_threads';
import { MbridgeError } from '../base/errors.js';
import { openDevice } from '../engine/open-device.js';
import { CommRuntime } from '../groups/comm/comm-runtime.js';
import { connectStore } from '../job/rendezvous/store-client.js';
import type { StoreEndpoint } from '../job/rendezvous/store-protocol.js';
import type { WorkerReport } from '../job/shared/worker-report.js';
import { reportOf } from '../job/worker/failure.js';
import type { RankFunction } from './rank-context.js';

/** What a thread is started with. */
export interface RankThreadData {
  readonly rank: number;
  readonly worldSize: number;
  readonly store: StoreEndpoint & { readonly token: string };
  readonly module: string;
  readonly name: string;
  readonly options: unknown;
  readonly threads: number;
  readonly timeoutSeconds: number;
}

export type RankThreadMessage =
  | { readonly kind: 'loaded' }
  | { readonly kind: 'done'; readonly value: unknown }
  | { readonly kind: 'failed'; readonly report: WorkerReport }
  /** With `process.exit`, or since nothing is left to do. */
  | { readonly kind: 'exits'; readonly code: number };

const LOADED = 'testing/loaded';

async function loadFunction({ module: url, name }: RankThreadData): Promise<RankFunction> {
  let found: unknown;
  try {
    found = ((await import(url)) as Record<string, unknown>)[name];
  } catch (cause) {
    if (!(cause instanceof Error) || !('code' in cause) || cause.code !== 'ERR_UNKNOWN_FILE_EXTENSION') throw cause;
    throw new MbridgeError('usage', 'MB_RANKS_ARGUMENT', cause.message, {
      hint: 'Node.js 22.18 or newer runs TypeScript by itself; before, name the compiled file, or a JavaScript module that loads it (docs/library.md)',
      cause,
    });
  }
  if (typeof found === 'function') return found as RankFunction;
  throw new MbridgeError('usage', 'MB_RANKS_ARGUMENT', `${url} exports no function ${name}`, {
    hint: 'export a function of that name, or name another with `export`',
  });
}

async function runRank(data: RankThreadData): Promise<unknown> {
  const { rank, worldSize, options, threads, timeoutSeconds } = data;
  const timeoutMs = timeoutSeconds * 1000;
  const run = await loadFunction(data);
  tell({ kind: 'loaded' });
  const store = await connectStore({ ...data.store, rank, worldSize, timeoutMs });
  // All begin together: none waits in a collective for one that still reads files.
  if ((await store.add(LOADED, 1)) === worldSize) await store.set(LOADED, new Uint8Array());
  await store.get(LOADED, timeoutMs);
  const device = openDevice('cpu', 0, threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds });
  const value = await run({ rank, worldSize, device, runtime, store, options });
  runtime.destroyAll();
  device.close();
  await store.close();
  return value;
}

function tell(message: RankThreadMessage): void {
  parentPort?.postMessage(message);
}

const data = workerData as RankThreadData;
process.on('exit', (code) => tell({ kind: 'exits', code }));
try {
  tell({ kind: 'done', value: await runRank(data) });
  process.exit(0); // whatever it left running
} catch (error) {
  tell({ kind: 'failed', report: reportOf(error, data.rank, 0) });
  process.exit(1); // the others learn that it has gone
}

import { MbridgeError } from '../../base/errors.js';
import { connectStore } from '../rendezvous/store-client.js';
import type { Store } from '../rendezvous/store.js';
import type { StopSignal } from '../shared/stop-signals.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import type { NodePlace } from './job.js';
import { KEY, type Begin, type NodeFacts, type Order, type Told } from './node-messages.js';

/** Node's timers cannot be longer. */
const FOREVER_MS = 2 ** 30;
const LOOK_MS = 200;
/** The store takes lines of 256 KiB. */
const LONGEST_MESSAGE = 200_000;

/** The launcher of a node that is not the first: it does as node 0's says, and tells it what happens here. */
export class Follower {
  readonly token: string;
  readonly #store: Store;
  #connected = true;

  private constructor(token: string, store: Store) {
    this.token = token;
    this.#store = store;
    void store.ended.then(() => (this.#connected = false));
  }

  /** Fails with MB_NODES_MISSING (exit 4) where node 0 is not there within `timeoutMs`, MB_STORE_REFUSED. */
  static async join(
    place: NodePlace,
    token: string,
    facts: NodeFacts,
    timeoutMs: number,
    warn: (text: string) => void,
  ): Promise<Follower> {
    const { count, rank, host, port } = place;
    const hint = `its launcher serves ${host}:${port}`;
    const missing = (): number[] => [0];
    const hostOf = (): string => host;
    const waiting = new WaitingNotice({ worldSize: count, member: 'node', missing, hostOf, hint }, warn);
    try {
      const store = await connectStore({ host, port, token, rank, worldSize: count, timeoutMs, member: 'node' });
      await store.set(KEY.facts(rank), Buffer.from(JSON.stringify(facts)));
      return new Follower(token, store);
    } catch (error) {
      if (!(error instanceof MbridgeError) || error.code !== 'MB_RENDEZVOUS_TIMEOUT') throw error;
      const seconds = Math.round(timeoutMs / 1000);
      const message = `node 0 was not at ${host}:${port} within ${seconds} s (dist.timeout_s): its launcher has not come, cannot be reached, or has ended`;
      const advice =
        'start the same command there with --node-rank 0; a run that is over is started again on all nodes';
      throw new MbridgeError('environment', 'MB_NODES_MISSING', message, { hint: advice, cause: error });
    } finally {
      waiting.close();
    }
  }

  /** What node 0 decides of an attempt; undefined where it is lost. Another node's loss is node 0's to judge. */
  async begin(attempt: number): Promise<Begin | undefined> {
    while (this.#connected) {
      try {
        const told = await this.#store.get(KEY.begin(attempt), FOREVER_MS);
        return JSON.parse(Buffer.from(told).toString()) as Begin;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    }
    return undefined;
  }

  /** Hears what ends an attempt, until `close`. A node that is lost ends it too. */
  orders(attempt: number, obey: (order: Order, signal: StopSignal) => void): void {
    for (const order of ['stop', 'kill', 'fail'] as const) {
      this.#store.get(KEY.order(attempt, order), FOREVER_MS).then(
        (signal) => {
          obey(order, Buffer.from(signal).toString() as StopSignal);
        },
        () => {
          obey('fail', 'SIGTERM');
        },
      );
    }
  }

  /** Calls when the connection to node 0 has ended. */
  onLost(lost: () => void): void {
    void this.#store.ended.then(lost);
  }

  tell(message: Told): void {
    const text = JSON.stringify(message);
    if (text.length <= LONGEST_MESSAGE) this.#store.tell(text);
  }

  async close(): Promise<void> {
    await this.#store.close();
  }
}

import { MbridgeError, errorText } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import { listenAddress, nearAddress } from '../rendezvous/listen-address.js';
import { connectStore } from '../rendezvous/store-client.js';
import { StoreServer } from '../rendezvous/store-server.js';
import type { Store } from '../rendezvous/store.js';
import type { StopSignal } from '../shared/stop-signals.js';
import { WaitingNotice } from '../shared/waiting-notice.js';
import type { FlightViews } from './flight-report.js';
import type { NodePlace } from './job.js';
import {
  KEY,
  differenceOf,
  nodeLost,
  type Begin,
  type NodeEnd,
  type NodeFacts,
  type Order,
  type Told,
} from './node-messages.js';
import type { GivenUp } from './supervisor.js';

/** How long the others may take to hear that the run is over. */
const GOODBYE_MS = 5_000;
/** How long a node may take to end its workers once it was told to. */
const ORDER_MS = 15_000;
/** Node's timers cannot be longer. */
const FOREVER_MS = 2 ** 30;

/** What the other nodes have to say, while an attempt runs or the next is waited for. */
export interface LeaderListener {
  told(message: Exclude<Told, { kind: 'ended' | 'flight' }>): void;
  lost(why: GivenUp): void;
}

/** The launcher of node 0, as the others see it: it serves the store where they meet, and decides. */
export class Leader {
  readonly place: NodePlace;
  readonly token: string;
  /** On which the ranks' store listens too. */
  readonly address: string;
  readonly #server: StoreServer;
  readonly #store: Store;
  #facts: readonly NodeFacts[] = [];
  #listener: LeaderListener | undefined;
  #lost: GivenUp | undefined;
  #closing = false;
  /** Of the current attempt, by node. */
  readonly #ends = new Map<number, NodeEnd>();
  readonly #flights: FlightViews[] = [];
  #settle: () => void = () => undefined;
  /** By when the others must have done as they were told in this attempt. */
  readonly #deadlines = new Set<NodeJS.Timeout>();

  private constructor(place: NodePlace, token: string, address: string, server: StoreServer, store: Store) {
    this.place = place;
    this.token = token;
    this.address = address;
    this.#server = server;
    this.#store = store;
  }

  /**
   * Waits until all nodes are there and have said the same. Fails, and tells those that have come why, with
   * MB_NODES_MISSING (exit 4) after `timeoutMs`, MB_NODE_DIFFERS (exit 3), MB_NODE_LOST (exit 5).
   */
  static async gather(
    place: NodePlace,
    token: string,
    facts: NodeFacts,
    timeoutMs: number,
    warn: (text: string) => void,
  ): Promise<Leader> {
    const address = await listenAddress(place.host);
    const to: { leader?: Leader } = {};
    const server = await StoreServer.listen(
      { host: address, port: place.port, token, worldSize: place.count, member: 'node' },
      { onTell: (node, text) => to.leader?.hear(node, JSON.parse(text) as Told) },
    );
    const near = { host: nearAddress(address), port: place.port };
    const store = await connectStore({ ...near, token, rank: 0, worldSize: place.count, timeoutMs, member: 'node' });
    const leader = (to.leader = new Leader(place, token, address, server, store));
    try {
      leader.#facts = await leader.#compare(facts, timeoutMs, warn);
    } catch (error) {
      const { exitCode, message, code } = error as MbridgeError;
      await leader.over(0, exitCode, errorText({ code, message }));
      throw error;
    }
    void leader.#watch();
    return leader;
  }

  /** What is said of a rank's node. */
  nodeOf(rank: number): string {
    const node = Math.floor(rank / (this.#facts[0]?.nproc ?? 1));
    return this.#named(node);
  }

  listen(listener: LeaderListener | undefined): void {
    this.#listener = listener;
    if (this.#lost !== undefined) listener?.lost(this.#lost);
  }

  async begin(attempt: number, go: Omit<Extract<Begin, { kind: 'go' }>, 'kind'>): Promise<void> {
    for (const deadline of this.#deadlines) clearTimeout(deadline);
    this.#deadlines.clear();
    this.#ends.clear();
    this.#flights.length = 0;
    await this.#decide(KEY.begin(attempt), JSON.stringify({ kind: 'go', ...go } satisfies Begin));
  }

  /** @param graceMs how long the other nodes' workers may take */
  order(attempt: number, order: Order, signal: StopSignal | '' = '', graceMs = 0): void {
    void this.#decide(KEY.order(attempt, order), signal).catch(() => undefined);
    const deadline = setTimeout(() => {
      const silent = this.#others().filter((node) => !this.#ends.has(node));
      if (this.#closing || silent.length === 0 || this.#lost !== undefined) return;
      this.#lose(silent);
    }, graceMs + ORDER_MS);
    deadline.unref();
    this.#deadlines.add(deadline);
  }

  /** How the workers of the other nodes ended, once all have; of those that are lost nothing is known. */
  async ended(): Promise<NodeEnd[]> {
    await new Promise<void>((resolve) => {
      this.#settle = () => {
        if (this.#lost !== undefined || this.#others().every((node) => this.#ends.has(node))) resolve();
      };
      this.#settle();
    });
    return [...this.#ends.values()];
  }

  /** What the ranks of the other nodes recorded of this attempt, where it failed; whole once {@link ended}. */
  get flights(): readonly FlightViews[] {
    return this.#flights;
  }

  /** There is no attempt of this number: the run is over. Returns when the others have heard it. */
  async over(attempt: number, exitCode: number, text: string): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    await this.#decide(KEY.begin(attempt), JSON.stringify({ kind: 'over', exitCode, text } satisfies Begin));
    const until = performance.now() + GOODBYE_MS;
    const waits = (): boolean => {
      const gone = new Set([...this.#server.left, ...this.#server.lost, ...this.#server.missing]);
      return performance.now() < until && this.#others().some((node) => !gone.has(node));
    };
    while (waits()) await new Promise((resolve) => setTimeout(resolve, 20));
    await this.#store.close();
    await this.#server.close();
  }

  hear(node: number, message: Told): void {
    if (message.kind === 'flight') this.#flights.push(message.views);
    else if (message.kind === 'ended') {
      this.#ends.set(node, message.end);
      this.#settle();
    } else this.#listener?.told(message);
  }

  #others(): number[] {
    return Array.from({ length: this.place.count - 1 }, (_, i) => i + 1);
  }

  #named(node: number): string {
    const host = this.#facts[node]?.host;
    return `node ${node}${host === undefined ? '' : ` (${host})`}`;
  }

  async #compare(own: NodeFacts, timeoutMs: number, warn: (text: string) => void): Promise<NodeFacts[]> {
    const { count, host, port } = this.place;
    const until = performance.now() + timeoutMs;
    const hint = `start the same command there, with --rdzv-endpoint ${host}:${port} and its --node-rank`;
    const server = this.#server;
    const waiting = new WaitingNotice({ worldSize: count, member: 'node', missing: () => server.missing, hint }, warn);
    const all = [own];
    try {
      for (const node of this.#others()) {
        const left = Math.max(1, until - performance.now());
        const facts = JSON.parse(Buffer.from(await this.#store.get(KEY.facts(node), left)).toString()) as NodeFacts;
        const difference = differenceOf(own, facts, node);
        if (difference !== undefined) {
          const advice = 'give every node the same command and files; only --node-rank differs';
          throw new MbridgeError('config', 'MB_NODE_DIFFERS', difference, { hint: advice });
        }
        all.push(facts);
      }
      return all;
    } catch (error) {
      if (!(error instanceof MbridgeError) || error.code === 'MB_NODE_DIFFERS') throw error;
      const { lost, missing } = server;
      if (lost.length > 0) {
        const { code, message, hint: advice } = nodeLost(`node ${formatRanks(lost)}`);
        throw new MbridgeError('worker', code, message, { ...(advice === undefined ? {} : { hint: advice }) });
      }
      const seconds = Math.round(timeoutMs / 1000);
      const message = `node ${formatRanks(missing)} of ${count} did not come within ${seconds} s (dist.timeout_s)`;
      throw new MbridgeError('environment', 'MB_NODES_MISSING', message, { hint });
    } finally {
      waiting.close();
    }
  }

  async #decide(key: string, value: string): Promise<void> {
    await this.#store.set(key, Buffer.from(value));
  }

  /** Until a node is lost, or the run over. */
  async #watch(): Promise<void> {
    await this.#store.get(KEY.never, FOREVER_MS).catch(() => undefined);
    if (!this.#closing) this.#lose(this.#server.lost);
  }

  #lose(nodes: readonly number[]): void {
    this.#lost ??= nodeLost(nodes.map((node) => this.#named(node)).join(', '));
    this.#listener?.lost(this.#lost);
    this.#settle();
  }
}

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { formatRanks } from '../../base/format-ranks.js';
import { LineSplitter } from '../../base/line-splitter.js';
import { StepAgreement } from './step-agreement.js';
import { MAX_LINE, STORE_PROTOCOL, proofOf } from './store-protocol.js';
import type { Hello, StoreFailure, StoreReply, StoreRequest } from './store-protocol.js';

/** How long a connection may take to prove that it belongs to the run. */
const HELLO_TIMEOUT_MS = 5_000;

export interface StoreServerOptions {
  /** '127.0.0.1' on one node; '0.0.0.0' over several. */
  host: string;
  /** 0 for any free port. */
  port: number;
  token: string;
  worldSize: number;
}

/** What the process that serves the store may want to know of the ranks. */
export interface StoreListener {
  onBegin?(rank: number, step: number): void;
}

interface Waiter {
  key: string;
  reply(reply: { value?: string; failure?: StoreFailure }): void;
  timer: NodeJS.Timeout;
}

/** The rendezvous store's server. It serves the ranks 0..worldSize-1 of one run, one connection each. */
export class StoreServer {
  readonly #options: StoreServerOptions;
  readonly #listener: StoreListener;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #values = new Map<string, string>();
  readonly #counters = new Map<string, number>();
  readonly #waiters = new Set<Waiter>();
  readonly #connected = new Set<number>();
  readonly #gone = new Set<number>();
  readonly #lost = new Set<number>();
  readonly #steps: StepAgreement;

  private constructor(options: StoreServerOptions, listener: StoreListener) {
    this.#options = options;
    this.#listener = listener;
    this.#steps = new StepAgreement(options.worldSize);
    this.#server = createServer((socket) => {
      this.#accept(socket);
    });
  }

  /** Listens; rejects with the system's error (EADDRINUSE, EACCES). Does not keep the process alive. */
  static async listen(options: StoreServerOptions, listener: StoreListener = {}): Promise<StoreServer> {
    const store = new StoreServer(options, listener);
    await new Promise<void>((resolve, reject) => {
      store.#server.once('error', reject);
      store.#server.listen({ host: options.host, port: options.port }, resolve);
    });
    store.#server.unref();
    return store;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ranks that have not connected yet. */
  get missing(): number[] {
    return Array.from({ length: this.#options.worldSize }, (_, rank) => rank).filter((r) => !this.#connected.has(r));
  }

  /** Ranks whose connection ended without a goodbye. */
  get lost(): number[] {
    return [...this.#lost];
  }

  /** Ranks that said goodbye. */
  get left(): number[] {
    return [...this.#gone];
  }

  /** Last update that each rank has begun; 0 before the first. */
  get begun(): readonly number[] {
    return this.#steps.begun;
  }

  /** What a rank has set. */
  value(key: string): Buffer | undefined {
    const value = this.#values.get(key);
    return value === undefined ? undefined : Buffer.from(value, 'base64');
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    for (const waiter of this.#waiters) clearTimeout(waiter.timer);
    this.#waiters.clear();
    this.#steps.fail(this.#lostFailure());
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }

  #accept(socket: Socket): void {
    const nonce = randomBytes(16).toString('hex');
    let rank: number | undefined;
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.unref();
    socket.setTimeout(HELLO_TIMEOUT_MS, () => socket.destroy());
    const send = (message: object): void => {
      if (socket.writable) socket.write(`${JSON.stringify(message)}\n`);
    };
    const lines = new LineSplitter((line) => {
      if (socket.destroyed) return;
      try {
        const message: unknown = JSON.parse(line);
        if (rank === undefined) {
          rank = this.#hello(message as Hello, nonce, socket);
          if (rank !== undefined) send({ id: 0 } satisfies StoreReply);
        } else {
          this.#request(message as StoreRequest, rank, send);
        }
      } catch {
        socket.destroy(); // not our protocol
      }
    }, MAX_LINE);
    socket.on('data', (chunk: Buffer) => {
      lines.push(chunk);
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (rank !== undefined && !this.#gone.has(rank)) this.#lose(rank);
    });
    send({ protocol: STORE_PROTOCOL, nonce });
  }

  /** The rank of a connection that proved itself; otherwise refuses it. */
  #hello(hello: Hello, nonce: string, socket: Socket): number | undefined {
    const { worldSize, token } = this.#options;
    const expected = Buffer.from(proofOf(token, nonce, hello.rank, hello.worldSize), 'hex');
    const given = Buffer.from(String(hello.proof), 'hex');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      socket.destroy(); // a stranger gets no reason
      return undefined;
    }
    let refusal: string | undefined;
    if (hello.worldSize !== worldSize) {
      refusal = `the run has ${worldSize} ranks, but rank ${hello.rank} was told ${hello.worldSize}`;
    } else if (!Number.isInteger(hello.rank) || hello.rank < 0 || hello.rank >= worldSize) {
      refusal = `rank ${hello.rank} is not one of 0-${worldSize - 1}`;
    } else if (this.#connected.has(hello.rank)) {
      refusal = `rank ${hello.rank} is connected already: two processes were given the same rank`;
    }
    if (refusal !== undefined) {
      const reply: StoreReply = { id: 0, failure: { code: 'MB_STORE_REFUSED', message: refusal } };
      socket.end(`${JSON.stringify(reply)}\n`);
      return undefined;
    }
    socket.setTimeout(0);
    socket.setKeepAlive(true, 15_000);
    this.#connected.add(hello.rank);
    return hello.rank;
  }

  #request(request: StoreRequest, rank: number, send: (reply: StoreReply) => void): void {
    const { id } = request;
    switch (request.op) {
      case 'set': {
        const failure = this.#set(request.key, request.value);
        send(failure === undefined ? { id } : { id, failure });
        return;
      }
      case 'add': {
        const sum = (this.#counters.get(request.key) ?? 0) + request.delta;
        this.#counters.set(request.key, sum);
        send({ id, sum });
        return;
      }
      case 'get':
        this.#get(request.key, request.timeoutMs, (reply) => {
          send({ id, ...reply });
        });
        return;
      case 'begin':
        this.#steps.begin(rank, request.step);
        this.#listener.onBegin?.(rank, request.step);
        return;
      case 'pause':
        if (this.#lost.size > 0) send({ id, failure: this.#lostFailure() });
        else this.#steps.pause(rank, request.step, request.timeoutMs, (reply) => send({ id, ...reply }));
        return;
      case 'bye':
        this.#gone.add(rank);
        this.#steps.leave(rank);
        send({ id });
        return;
    }
  }

  #set(key: string, value: string): StoreFailure | undefined {
    const present = this.#values.get(key);
    if (present !== undefined && present !== value) {
      return { code: 'MB_STORE_CONFLICT', message: `the store's key '${key}' was set twice, to different values` };
    }
    this.#values.set(key, value);
    for (const waiter of this.#waiters) if (waiter.key === key) this.#settle(waiter, { value });
    return undefined;
  }

  #get(key: string, timeoutMs: number, reply: Waiter['reply']): void {
    const value = this.#values.get(key);
    if (value !== undefined) {
      reply({ value });
    } else if (this.#lost.size > 0) {
      reply({ failure: this.#lostFailure() });
    } else {
      const timer = setTimeout(() => {
        this.#settle(waiter, { failure: this.#timeoutFailure(key, timeoutMs) });
      }, timeoutMs);
      const waiter: Waiter = { key, reply, timer };
      this.#waiters.add(waiter);
    }
  }

  #settle(waiter: Waiter, reply: Parameters<Waiter['reply']>[0]): void {
    clearTimeout(waiter.timer);
    this.#waiters.delete(waiter);
    waiter.reply(reply);
  }

  /** A rank that is lost may have been the one to set what others wait for: they fail now, not at their time-out. */
  #lose(rank: number): void {
    this.#lost.add(rank);
    for (const waiter of this.#waiters) this.#settle(waiter, { failure: this.#lostFailure() });
    this.#steps.fail(this.#lostFailure());
  }

  #lostFailure(): StoreFailure {
    return { code: 'MB_PEER_LOST', message: `rank ${formatRanks([...this.#lost])} was lost` };
  }

  #timeoutFailure(key: string, timeoutMs: number): StoreFailure {
    const { missing } = this;
    const who =
      missing.length > 0
        ? `rank ${formatRanks(missing)} of ${this.#options.worldSize} never connected`
        : 'every rank is connected, so the one that sets it is stuck or made other groups';
    const after = `${(timeoutMs / 1000).toFixed(1)} s`;
    return { code: 'MB_RENDEZVOUS_TIMEOUT', message: `'${key}' was not set within ${after}: ${who}` };
  }
}

import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { formatRanks } from '../../base/format-ranks.js';
import type { Pace } from '../../base/pace.js';
import { LineSplitter } from '../../base/line-splitter.js';
import { systemError } from '../../base/system-error.js';
import { publishSocket, removeSocket, temporarySocket } from './private-socket.js';
import { StepAgreement } from './step-agreement.js';
import {
  HANDSHAKE_MS,
  MAX_LINE,
  MAX_STRANGER_BYTES,
  STORE_PROTOCOL,
  isProof,
  parseHello,
  parseRequest,
  proofOf,
} from './store-protocol.js';
import type { Hello, Member, StoreEndpoint, StoreFailure, StoreReply, StoreRequest } from './store-protocol.js';

/** Connections that have not proven themselves, beyond one a rank; one more, and the oldest of them is dropped. */
const MAX_STRANGERS = 64;
const FREE_PORT = 'set MASTER_PORT or MBRIDGE_STORE_PORT to a free port on every rank';
/** Replies that may wait for a member that does not read them, in bytes. */
const MAX_UNREAD = 64 * 2 ** 20;

/** Where to listen (port 0 for any free one), and for whom. */
export type StoreServerOptions = StoreEndpoint & {
  token: string;
  worldSize: number;
  /** What the members are; ranks by default. */
  member?: Member;
  /** For {@link HANDSHAKE_MS} (tests). */
  handshakeMs?: number;
};

/** What the process that serves the store may want to know of the ranks. */
export interface StoreListener {
  onBegin?(rank: number, step: number, pace: Pace | undefined): void;
  /** Its part of the run is done. */
  onLeave?(rank: number): void;
  onTell?(rank: number, text: string): void;
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
  /** Those of them that have not proven themselves, the oldest first. */
  readonly #strangers = new Set<Socket>();
  readonly #values = new Map<string, string>();
  readonly #counters = new Map<string, number>();
  readonly #waiters = new Set<Waiter>();
  readonly #connected = new Set<number>();
  readonly #gone = new Set<number>();
  readonly #lost = new Set<number>();
  readonly #steps: StepAgreement;
  /** Of the file that leads to this server, while it is there. */
  #inode = 0;

  private constructor(options: StoreServerOptions, listener: StoreListener) {
    this.#options = options;
    this.#listener = listener;
    this.#steps = new StepAgreement(options.worldSize);
    this.#server = createServer((socket) => {
      this.#accept(socket);
    });
  }

  /** Listens. Does not keep the process alive. @throws MbridgeError MB_STORE_PORT (exit 4) where it cannot listen */
  static async listen(options: StoreServerOptions, listener: StoreListener = {}): Promise<StoreServer> {
    const store = new StoreServer(options, listener);
    const server = store.#server;
    const temporary = 'socket' in options ? temporarySocket(options.socket) : '';
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen('socket' in options ? { path: temporary } : { host: options.host, port: options.port }, resolve);
      });
      // One connection could not be accepted, for want of files say: its client tries again.
      server.on('error', () => undefined);
      if ('socket' in options) store.#inode = await publishSocket(temporary, options.socket);
    } catch (error) {
      server.close();
      throw systemError(error, { code: 'MB_STORE_PORT', what: 'serve the rendezvous store', hint: FREE_PORT }) ?? error;
    }
    server.unref();
    return store;
  }

  /** 0 where it listens on a socket of this node. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Of the socket of this node; 0 where it listens on a port. */
  get inode(): number {
    return this.#inode;
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
    this.#removeSocket();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }

  #accept(socket: Socket): void {
    const nonce = randomBytes(16).toString('hex');
    let rank: number | undefined;
    let read = 0;
    this.#sockets.add(socket);
    this.#strangers.add(socket);
    const [oldest] = this.#strangers;
    if (this.#strangers.size > this.#options.worldSize + MAX_STRANGERS) oldest?.destroy();
    socket.setNoDelay(true);
    socket.unref();
    const deadline = setTimeout(() => socket.destroy(), this.#options.handshakeMs ?? HANDSHAKE_MS);
    deadline.unref();
    const send = (message: object): void => {
      if (socket.writableLength > MAX_UNREAD) socket.destroy();
      if (socket.writable) socket.write(`${JSON.stringify(message)}\n`);
    };
    const lines = new LineSplitter((line) => {
      if (socket.destroyed) return;
      if (rank !== undefined) {
        const request = parseRequest(line);
        if (request === undefined)
          socket.destroy(); // not our protocol
        else this.#request(request, rank, send);
        return;
      }
      const hello = parseHello(line);
      const welcome = hello === undefined ? undefined : this.#welcome(hello, nonce);
      if (hello === undefined || welcome === undefined) {
        socket.destroy(); // a stranger gets no reason
      } else if (welcome.failure !== undefined) {
        socket.end(`${JSON.stringify(welcome)}\n`);
      } else {
        clearTimeout(deadline);
        this.#strangers.delete(socket);
        socket.setKeepAlive(true, 15_000);
        rank = hello.rank;
        this.#connected.add(rank);
        send(welcome);
        if (this.#connected.size === this.#options.worldSize) this.#removeSocket(); // nobody else is to come
      }
    }, MAX_LINE);
    socket.on('data', (chunk: Buffer) => {
      read += chunk.length;
      if (rank === undefined && read > MAX_STRANGER_BYTES) socket.destroy();
      else lines.push(chunk);
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      clearTimeout(deadline);
      this.#sockets.delete(socket);
      this.#strangers.delete(socket);
      if (rank !== undefined && !this.#gone.has(rank)) this.#lose(rank);
    });
    send({ protocol: STORE_PROTOCOL, nonce });
  }

  /** The answer to a member's hello; undefined for one that does not prove itself. */
  #welcome(hello: Hello, serverNonce: string): StoreReply | undefined {
    const { worldSize, token, member = 'rank' } = this.#options;
    const { rank } = hello;
    const handshake = { token, serverNonce, clientNonce: hello.nonce, rank, worldSize: hello.worldSize };
    if (!isProof(hello.proof, 'client', handshake)) return undefined;
    let refusal: string | undefined;
    if (hello.worldSize !== worldSize) {
      refusal = `the run has ${worldSize} ${member}s, but ${member} ${rank} was told ${hello.worldSize}`;
    } else if (rank < 0 || rank >= worldSize) {
      refusal = `${member} ${rank} is not one of 0-${worldSize - 1}`;
    } else if (this.#lost.has(rank)) {
      refusal = `${member} ${rank} was lost, and the run without it is over`;
    } else if (this.#connected.has(rank)) {
      refusal = `${member} ${rank} is connected already: two ${member === 'node' ? 'launchers' : 'processes'} were given the same ${member === 'node' ? '--node-rank' : 'rank'}`;
    }
    if (refusal !== undefined) return { id: 0, failure: { code: 'MB_STORE_REFUSED', message: refusal } };
    return { id: 0, proof: proofOf('server', handshake) };
  }

  #removeSocket(): void {
    if ('socket' in this.#options && this.#inode !== 0) removeSocket(this.#options.socket, this.#inode);
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
        this.#listener.onBegin?.(rank, request.step, paceOf(request));
        return;
      case 'tell':
        this.#listener.onTell?.(rank, request.text);
        return;
      case 'pause':
        if (this.#lost.size > 0) send({ id, failure: this.#lostFailure() });
        else this.#steps.pause(rank, request.step, request.timeoutMs, (reply) => send({ id, ...reply }));
        return;
      case 'bye':
        this.#gone.add(rank);
        this.#steps.leave(rank);
        this.#listener.onLeave?.(rank);
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
    const { member = 'rank' } = this.#options;
    return { code: 'MB_PEER_LOST', message: `${member} ${formatRanks([...this.#lost])} was lost` };
  }

  #timeoutFailure(key: string, timeoutMs: number): StoreFailure {
    const { missing } = this;
    const { member = 'rank' } = this.#options;
    const who =
      missing.length > 0
        ? `${member} ${formatRanks(missing)} of ${this.#options.worldSize} never connected`
        : `every ${member} is connected, so the one that sets it is stuck or made other groups`;
    const after = `${(timeoutMs / 1000).toFixed(1)} s`;
    return { code: 'MB_RENDEZVOUS_TIMEOUT', message: `'${key}' was not set within ${after}: ${who}` };
  }
}

function paceOf({ ms, stage }: { ms?: number; stage?: number }): Pace | undefined {
  return ms === undefined || stage === undefined ? undefined : { ms, stage };
}

import { createHmac, randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { MbridgeError } from '../../base/errors.js';
import type { Pace } from '../../base/pace.js';
import { LineSplitter } from '../../base/line-splitter.js';
import { systemFault } from '../../base/system-error.js';
import {
  HANDSHAKE_MS,
  MAX_LINE,
  MAX_STRANGER_BYTES,
  isProof,
  parseGreeting,
  parseReply,
  proofOf,
  type Handshake,
} from './store-protocol.js';
import type { Member, StoreEndpoint, StoreFailure, StoreReply, StoreRequest } from './store-protocol.js';
import { outwardAddress } from './listen-address.js';
import type { Network, Store } from './store.js';

const RETRY_MS = 100;
/** A server under attack drops connections that have not proven themselves; one that drops so many does not know us. */
const MAX_DROPS = 3;

export type StoreClientOptions = StoreEndpoint & {
  token: string;
  rank: number;
  worldSize: number;
  /** How long to keep trying to reach the server. */
  timeoutMs: number;
  /** What the members of this store are; ranks by default. */
  member?: Member;
  /** Where the ranks are on several nodes: which one this is on, and the name of rank 0's. */
  node?: { name: string; masterAddr: string };
  /** Called before each try; what it throws ends them (a socket's folder that is no longer this user's). */
  check?: () => void;
};

interface Pending {
  resolve(reply: StoreReply): void;
  reject(error: Error): void;
}

type RequestBody = StoreRequest extends infer R ? (R extends { id: number } ? Omit<R, 'id'> : never) : never;

/**
 * Connects to the run's store; both sides prove that they know the token. Retries until `timeoutMs`, for the server may
 * start later. Fails with MB_RENDEZVOUS_TIMEOUT (nobody listens, or nothing is said), MB_STORE_REFUSED (something else
 * listens there; wrong token, rank or world size).
 */
export async function connectStore(options: StoreClientOptions): Promise<Store> {
  const started = performance.now();
  for (let drops = 0; ;) {
    options.check?.();
    const left = options.timeoutMs - (performance.now() - started);
    const client = new StoreClient(options, Math.max(1, Math.min(HANDSHAKE_MS, left)));
    try {
      await client.ready;
      await client.tellNode();
      return client;
    } catch (error) {
      if (error instanceof MbridgeError && !(client.dropped && ++drops < MAX_DROPS)) throw error;
      const fault = systemFault(error);
      // A server that is not there yet is worth another try; a limit of this process is not.
      if (fault !== undefined && LIMITS.has(fault.errno)) throw error;
      const waited = performance.now() - started;
      if (waited >= options.timeoutMs) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new MbridgeError(
          'environment',
          'MB_RENDEZVOUS_TIMEOUT',
          `${memberName(options)} found no rendezvous store at ${placeOf(options)} ` +
            `within ${(waited / 1000).toFixed(1)} s (${reason})`,
          { hint: 'rank 0 (or the launcher) serves it: check that it runs, and MASTER_ADDR and the port on this rank' },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

const LIMITS: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EACCES', 'EPERM']);

function placeOf(endpoint: StoreEndpoint): string {
  return 'socket' in endpoint ? endpoint.socket : `${endpoint.host}:${endpoint.port}`;
}

/** One connection to a {@link Store} server. */
class StoreClient implements Store {
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
  readonly #options: StoreClientOptions;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  /** What both sides must prove, once the server has greeted. */
  #handshake: Handshake | undefined;
  #welcome = false;
  #dropped = false;
  #nextId = 1;
  #closed: Error | undefined;
  #network: Network | null = null;

  constructor(options: StoreClientOptions, handshakeMs: number) {
    this.#options = options;
    this.#socket = connect('socket' in options ? { path: options.socket } : { host: options.host, port: options.port });
    this.#socket.setNoDelay(true);
    this.ended = new Promise((resolve) => {
      this.#socket.once('close', () => {
        resolve();
      });
    });
    // From the start, not from the last byte: whatever listens there may send one now and then.
    const deadline = setTimeout(() => {
      this.#fail(new Error(this.#handshake === undefined ? 'no greeting' : 'no answer to the greeting'));
    }, handshakeMs);
    this.ready = new Promise((resolve, reject) => {
      this.#socket.once('error', reject);
      const welcome: Pending = {
        resolve: () => {
          clearTimeout(deadline);
          this.#socket.setKeepAlive(true, 15_000);
          this.#socket.unref(); // a request's timer keeps the process alive, an idle connection must not
          resolve();
        },
        reject,
      };
      this.#pending.set(0, welcome);
    });
    let read = 0;
    const lines = new LineSplitter((line) => {
      if (this.#closed === undefined) this.#receive(line);
    }, MAX_LINE);
    this.#socket.on('data', (chunk: Buffer) => {
      read += chunk.length;
      if (!this.#welcome && read > 2 * MAX_STRANGER_BYTES) this.#fail(this.#foreign());
      else lines.push(chunk);
    });
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('close', () => {
      clearTimeout(deadline);
      this.#fail(this.#closeError());
    });
  }

  /** Whether the server closed the connection after this side's proof, without a word. */
  get dropped(): boolean {
    return this.#dropped;
  }

  get network(): Network | null {
    return this.#network;
  }

  /** Where there are several nodes, says on which one this rank is. */
  async tellNode(): Promise<void> {
    const { node, rank, token } = this.#options;
    if (node === undefined) return;
    await this.set(`node/${rank}`, Buffer.from(node.name));
    const nodes = new Map<number, Promise<string>>();
    this.#network = {
      address: outwardAddress(this.#socket.localAddress ?? '', node.masterAddr),
      nodeOf: async (of, timeoutMs) => {
        const known = nodes.get(of) ?? this.get(`node/${of}`, timeoutMs).then((told) => Buffer.from(told).toString());
        nodes.set(of, known);
        return known;
      },
      key: (name) => createHmac('sha256', token).update(`communicator ${name}`).digest(),
    };
  }

  async set(key: string, value: Uint8Array): Promise<void> {
    await this.#request({ op: 'set', key, value: Buffer.from(value).toString('base64') });
  }

  async get(key: string, timeoutMs: number): Promise<Uint8Array> {
    const reply = await this.#request({ op: 'get', key, timeoutMs }, timeoutMs);
    if (reply.value === undefined) throw this.#foreign();
    return new Uint8Array(Buffer.from(reply.value, 'base64'));
  }

  async add(key: string, delta: number): Promise<number> {
    const { sum } = await this.#request({ op: 'add', key, delta });
    if (sum === undefined) throw this.#foreign();
    return sum;
  }

  begin(step: number, pace?: Pace): void {
    const request: StoreRequest = { id: -1, op: 'begin', step, ...pace };
    if (this.#closed === undefined) this.#socket.write(`${JSON.stringify(request)}\n`);
  }

  tell(text: string): void {
    const request: StoreRequest = { id: -1, op: 'tell', text };
    if (this.#closed === undefined) this.#socket.write(`${JSON.stringify(request)}\n`);
  }

  async pause(step: number, timeoutMs: number): Promise<number> {
    const { sum } = await this.#request({ op: 'pause', step, timeoutMs }, timeoutMs);
    if (sum === undefined) throw this.#foreign();
    return sum;
  }

  async close(): Promise<void> {
    if (this.#closed !== undefined) return;
    await this.#request({ op: 'bye' }).catch(() => undefined); // a server that is gone needs no goodbye
    this.#socket.destroy();
  }

  async #request(body: RequestBody, waitMs = 0): Promise<StoreReply> {
    if (this.#closed !== undefined) throw this.#closed;
    const id = this.#nextId++;
    // The server times a wait itself, and knows who is missing; this timer only covers a server that hangs.
    const timer = setTimeout(() => {
      this.#socket.destroy();
    }, waitMs + 30_000);
    try {
      return await new Promise<StoreReply>((resolve, reject) => {
        this.#pending.set(id, { resolve, reject });
        this.#socket.write(`${JSON.stringify({ id, ...body })}\n`);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  #receive(line: string): void {
    if (this.#handshake === undefined) {
      this.#greet(line);
      return;
    }
    const reply = parseReply(line);
    const pending = reply === undefined ? undefined : this.#pending.get(reply.id);
    if (reply === undefined || pending === undefined) {
      this.#fail(this.#foreign());
      return;
    }
    if (!this.#welcome && reply.failure !== undefined) {
      this.#fail(toError(reply.failure, memberName(this.#options)));
      return;
    }
    if (!this.#welcome && !isProof(reply.proof, 'server', this.#handshake)) {
      this.#fail(this.#refused('does not know the token of this run'));
      return;
    }
    this.#welcome = true;
    this.#pending.delete(reply.id);
    if (reply.failure === undefined) pending.resolve(reply);
    else pending.reject(toError(reply.failure, memberName(this.#options)));
  }

  #greet(line: string): void {
    const greeting = parseGreeting(line);
    if (greeting === undefined) {
      this.#fail(this.#foreign());
      return;
    }
    const { token, rank, worldSize } = this.#options;
    const clientNonce = randomBytes(16).toString('hex');
    this.#handshake = { token, serverNonce: greeting.nonce, clientNonce, rank, worldSize };
    const proof = proofOf('client', this.#handshake);
    this.#socket.write(`${JSON.stringify({ rank, worldSize, nonce: clientNonce, proof })}\n`);
  }

  /** Why the connection ended, by how far it had come; not an MbridgeError if it is worth another try. */
  #closeError(): Error {
    if (this.#handshake === undefined) return new Error('the connection was closed before a greeting');
    if (this.#pending.has(0)) {
      this.#dropped = true;
      return this.#refused('refused the token: it belongs to another run');
    }
    const message = `${memberName(this.#options)} lost the rendezvous store at ${placeOf(this.#options)}`;
    return new MbridgeError('worker', 'MB_PEER_LOST', message);
  }

  #foreign(): MbridgeError {
    return this.#refused('is no rendezvous store of this version: it sent something else');
  }

  #refused(what: string): MbridgeError {
    return new MbridgeError('environment', 'MB_STORE_REFUSED', `${placeOf(this.#options)} ${what}`, {
      hint: 'set MASTER_PORT (or MBRIDGE_STORE_PORT) to a free port, and the same MBRIDGE_TOKEN on every rank',
    });
  }

  #fail(error: Error): void {
    this.#closed ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const each of pending) each.reject(error);
    this.#socket.destroy();
  }
}

function memberName({ member = 'rank', rank }: Pick<StoreClientOptions, 'member' | 'rank'>): string {
  return `${member} ${rank}`;
}

function toError(failure: StoreFailure, member: string): MbridgeError {
  const message = `${member}: ${failure.message}`;
  switch (failure.code) {
    case 'MB_PEER_LOST':
      return new MbridgeError('worker', failure.code, message);
    case 'MB_RENDEZVOUS_TIMEOUT':
      return new MbridgeError('environment', failure.code, message, {
        hint: 'see the log of the missing rank; a slow start may need a larger dist.timeout_s',
      });
    case 'MB_STORE_REFUSED':
      return new MbridgeError('environment', failure.code, message, {
        hint: member.startsWith('node')
          ? 'check --nnodes and --node-rank of every launcher'
          : 'check RANK and WORLD_SIZE of every worker',
      });
    case 'MB_STOP_TIMEOUT':
      return new MbridgeError('hang', failure.code, message, { hint: 'see the log of the rank that is named' });
    case 'MB_STORE_CONFLICT':
      return new MbridgeError('internal', failure.code, message);
  }
}

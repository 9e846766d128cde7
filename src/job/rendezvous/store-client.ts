import { connect, type Socket } from 'node:net';
import { MbridgeError } from '../../base/errors.js';
import { LineSplitter } from '../../base/line-splitter.js';
import { MAX_LINE, STORE_PROTOCOL, proofOf } from './store-protocol.js';
import type { Greeting, StoreFailure, StoreReply, StoreRequest } from './store-protocol.js';
import type { Store } from './store.js';

const RETRY_MS = 100;

export interface StoreClientOptions {
  host: string;
  port: number;
  token: string;
  rank: number;
  worldSize: number;
  /** How long to keep trying to reach the server. */
  timeoutMs: number;
}

interface Pending {
  resolve(reply: StoreReply): void;
  reject(error: Error): void;
}

type RequestBody = StoreRequest extends infer R ? (R extends { id: number } ? Omit<R, 'id'> : never) : never;

/**
 * Connects to the run's store and proves the token. Retries until `timeoutMs`, for the server may start later.
 * Fails with MB_RENDEZVOUS_TIMEOUT (nobody listens), MB_STORE_REFUSED (wrong token, rank or world size).
 */
export async function connectStore(options: StoreClientOptions): Promise<Store> {
  const started = performance.now();
  for (;;) {
    try {
      const client = new StoreClient(options);
      await client.ready;
      return client;
    } catch (error) {
      if (error instanceof MbridgeError) throw error;
      const waited = performance.now() - started;
      if (waited >= options.timeoutMs) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new MbridgeError(
          'environment',
          'MB_RENDEZVOUS_TIMEOUT',
          `rank ${options.rank} found no rendezvous store at ${options.host}:${options.port} ` +
            `within ${(waited / 1000).toFixed(1)} s (${reason})`,
          { hint: 'rank 0 (or the launcher) serves it: check that it runs, and MASTER_ADDR and the port on this rank' },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** One connection to a {@link Store} server. */
class StoreClient implements Store {
  readonly ready: Promise<void>;
  readonly #options: StoreClientOptions;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  #greeted = false;
  #nextId = 1;
  #closed: Error | undefined;

  constructor(options: StoreClientOptions) {
    this.#options = options;
    this.#socket = connect({ host: options.host, port: options.port, timeout: Math.max(1, options.timeoutMs) });
    this.#socket.setNoDelay(true);
    this.ready = new Promise((resolve, reject) => {
      this.#socket.once('error', reject);
      this.#socket.once('timeout', () => this.#socket.destroy(new Error('no answer')));
      const welcome: Pending = {
        resolve: () => {
          this.#socket.setTimeout(0);
          this.#socket.setKeepAlive(true, 15_000);
          this.#socket.unref(); // a request's timer keeps the process alive, an idle connection must not
          resolve();
        },
        reject,
      };
      this.#pending.set(0, welcome);
    });
    const lines = new LineSplitter((line) => {
      this.#receive(line);
    }, MAX_LINE);
    this.#socket.on('data', (chunk: Buffer) => {
      lines.push(chunk);
    });
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('close', () => {
      this.#fail(this.#closeError());
    });
  }

  async set(key: string, value: Uint8Array): Promise<void> {
    await this.#request({ op: 'set', key, value: Buffer.from(value).toString('base64') });
  }

  async get(key: string, timeoutMs: number): Promise<Uint8Array> {
    const reply = await this.#request({ op: 'get', key, timeoutMs }, timeoutMs);
    return new Uint8Array(Buffer.from(reply.value ?? '', 'base64'));
  }

  async add(key: string, delta: number): Promise<number> {
    return (await this.#request({ op: 'add', key, delta })).sum ?? 0;
  }

  begin(step: number): void {
    if (this.#closed === undefined) this.#socket.write(`${JSON.stringify({ id: -1, op: 'begin', step })}\n`);
  }

  async pause(step: number, timeoutMs: number): Promise<number> {
    return (await this.#request({ op: 'pause', step, timeoutMs }, timeoutMs)).sum ?? step;
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
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      this.#fail(this.#refused('does not speak the rendezvous protocol'));
      return;
    }
    if (!this.#greeted) {
      this.#greet(message as Greeting);
      return;
    }
    const reply = message as StoreReply;
    const pending = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    if (reply.failure === undefined) pending?.resolve(reply);
    else pending?.reject(toError(reply.failure, this.#options.rank));
  }

  #greet(greeting: Greeting): void {
    if (greeting.protocol !== STORE_PROTOCOL) {
      this.#fail(this.#refused('is not a rendezvous store of this version'));
      return;
    }
    this.#greeted = true;
    const { token, rank, worldSize } = this.#options;
    this.#socket.write(
      `${JSON.stringify({ rank, worldSize, proof: proofOf(token, greeting.nonce, rank, worldSize) })}\n`,
    );
  }

  /** Why the connection ended, by how far it had come; not an MbridgeError if it is worth another try. */
  #closeError(): Error {
    const { host, port, rank } = this.#options;
    if (!this.#greeted) return new Error('the connection was closed before a greeting');
    if (this.#pending.has(0)) return this.#refused('refused the token: it belongs to another run');
    const message = `rank ${rank} lost the rendezvous store at ${host}:${port}`;
    return new MbridgeError('worker', 'MB_PEER_LOST', message);
  }

  #refused(what: string): MbridgeError {
    const { host, port } = this.#options;
    return new MbridgeError('environment', 'MB_STORE_REFUSED', `${host}:${port} ${what}`, {
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

function toError(failure: StoreFailure, rank: number): MbridgeError {
  const message = `rank ${rank}: ${failure.message}`;
  switch (failure.code) {
    case 'MB_PEER_LOST':
      return new MbridgeError('worker', failure.code, message);
    case 'MB_RENDEZVOUS_TIMEOUT':
      return new MbridgeError('environment', failure.code, message, {
        hint: 'see the log of the missing rank; a slow start may need a larger dist.timeout_s',
      });
    case 'MB_STORE_REFUSED':
      return new MbridgeError('environment', failure.code, message, {
        hint: 'check RANK and WORLD_SIZE of every worker',
      });
    case 'MB_STOP_TIMEOUT':
      return new MbridgeError('hang', failure.code, message, { hint: 'see the log of the rank that is named' });
    case 'MB_STORE_CONFLICT':
      return new MbridgeError('internal', failure.code, message);
  }
}

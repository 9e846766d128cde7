import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { refusalOf } from '../base/http-requests.js';
import { systemError } from '../base/system-error.js';
import { livePage, pageFile } from './page-html.js';
import { streamRuns, type Send } from './run-stream.js';
import type { RunWatch } from './run-watch.js';

const HEADERS = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
} as const;
/** Keeps a connection from being taken for dead, and finds out whether it is. */
const ALIVE_MS = 15_000;

/** A server of the page; it reads, and nothing else. */
export interface Dash {
  /** Where a browser finds it; who does not have it, another user of the machine too, finds nothing. */
  readonly url: string;
  close(): Promise<void>;
}

export interface DashOptions {
  readonly watch: RunWatch;
  /** An address of this machine. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
}

/** @throws MbridgeError MB_DASH_PORT (exit 4) where it cannot listen */
export async function serveDash({ watch, host, port }: DashOptions): Promise<Dash> {
  const root = `/${randomBytes(16).toString('hex')}/`;
  const files = new Map([
    ['', { type: 'text/html; charset=utf-8', text: livePage() }],
    ['page.js', { type: 'text/javascript; charset=utf-8', text: pageFile('page.js') }],
    ['page.css', { type: 'text/css; charset=utf-8', text: pageFile('page.css') }],
  ]);
  const server = createServer((request, response) => {
    const refused = refusalOf(request, host);
    if (refused !== undefined) {
      answer(request, response, refused.status, 'text/plain; charset=utf-8', `${refused.why}\n`);
      return;
    }
    // Nothing of a URL is ever a path: it names one of these, or runs by their ids.
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://here');
    const name = pathname.startsWith(root) ? pathname.slice(root.length) : undefined;
    const file = name === undefined ? undefined : files.get(name);
    if (file !== undefined) answer(request, response, 200, file.type, file.text);
    else if (name === 'events') void events(watch, searchParams.getAll('run'), request, response);
    else answer(request, response, 404, 'text/plain; charset=utf-8', 'not found\n');
  });
  server.listen({ host, port });
  try {
    await once(server, 'listening');
  } catch (error) {
    const what = `listen on port ${port} of ${host}`;
    throw systemError(error, { code: 'MB_DASH_PORT', what, hint: 'choose a free port with --port' }) ?? error;
  }
  const { address, port: bound, family } = server.address() as AddressInfo;
  const shown = ['0.0.0.0', '::'].includes(address) ? hostname() : family === 'IPv6' ? `[${address}]` : address;
  return {
    url: `http://${shown}:${bound}${root}`,
    close: async () => {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, 'close');
    },
  };
}

function answer(
  { method }: IncomingMessage,
  response: ServerResponse,
  status: number,
  type: string,
  text: string,
): void {
  const allow = status === 405 ? { Allow: 'GET, HEAD' } : {};
  response.writeHead(status, { ...HEADERS, ...allow, 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) });
  response.end(method === 'HEAD' ? undefined : text);
}

/** Server-sent events of runs, until the page is closed. */
async function events(
  watch: RunWatch,
  ids: readonly string[],
  { method }: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/event-stream; charset=utf-8' });
  if (method === 'HEAD') {
    response.end();
    return;
  }
  response.flushHeaders();
  const closed = new AbortController();
  response.on('close', () => {
    closed.abort();
  });
  response.on('error', () => undefined); // it is closed next
  const alive = setInterval(() => response.write(':\n\n'), ALIVE_MS);
  const send: Send = async (name, data) => {
    if (closed.signal.aborted || response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)) return;
    await once(response, 'drain', { signal: closed.signal }).catch(() => undefined);
  };
  try {
    await streamRuns(watch, ids, send, closed.signal);
  } finally {
    clearInterval(alive);
    response.end();
  }
}

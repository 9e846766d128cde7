import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';

/** Why a request is not served. */
export interface Refusal {
  readonly status: number;
  readonly why: string;
}

/**
 * What a server that only tells something refuses: requests that would change something, and those by a name that is not
 * its own. A page of another site can reach a server of this machine by a name that it lets point here (DNS rebinding);
 * the browser then sends that name.
 * @param host the address or name that the server listens on; null takes any name
 */
export function refusalOf({ method, headers, url }: IncomingMessage, host: string | null): Refusal | undefined {
  if (host !== null && !isOwnName(headers.host, host)) {
    return { status: 421, why: 'this server does not go by that name' };
  }
  if (method !== 'GET' && method !== 'HEAD') return { status: 405, why: 'this server is read only' };
  if (!URL.canParse(url ?? '', 'http://here')) return { status: 400, why: 'no such address' };
  return undefined;
}

function isOwnName(named: string | undefined, host: string): boolean {
  const address = `http://${named ?? ''}`;
  if (!URL.canParse(address)) return false;
  const name = new URL(address).hostname.replace(/^\[|\]$/g, '');
  return isIP(name) !== 0 || ['localhost', host.toLowerCase(), hostname().toLowerCase()].includes(name);
}

const LOOPBACK = /^(127\.\d+\.\d+\.\d+|::1|localhost)$/;

/** Whether only this machine reaches what listens there. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

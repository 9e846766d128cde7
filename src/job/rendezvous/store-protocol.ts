import { createHmac, timingSafeEqual } from 'node:crypto';
import { isPlainObject } from '../../base/plain-object.js';

/**
 * The store speaks lines of JSON. The server greets with a nonce; the client answers with one of its own and an HMAC of
 * both, which proves that it knows the run's token; the server's welcome proves the same. The token itself never crosses
 * the wire. Then requests and replies are matched by id.
 */
export const STORE_PROTOCOL = 'mbridge-store/2';
/** Longest line either side accepts from the other once both are proven; values are communicator ids and short texts. */
export const MAX_LINE = 262_144;
/** Most bytes either side reads of a stranger. */
export const MAX_STRANGER_BYTES = 1024;
/** How long a connection may take from its start until both sides are proven, however often a byte comes. */
export const HANDSHAKE_MS = 10_000;

/** Characters of a token that stands against guesses over a network: 64 bits in hexadecimal. */
const STRONG_TOKEN = 16;

/** What is to be said of a token that can be guessed. */
export function weakToken(token: string): string | undefined {
  if (token.length >= STRONG_TOKEN) return undefined;
  return `MBRIDGE_TOKEN has ${token.length} characters; over a network take one that cannot be guessed: openssl rand -hex 16`;
}

/** Where a store is: a socket of this node (its path), or a port. */
export type StoreEndpoint = { readonly socket: string } | { readonly host: string; readonly port: number };

/** What meets at a store: the ranks of a run, or the launchers of its nodes. */
export type Member = 'rank' | 'node';

export interface Greeting {
  protocol: string;
  nonce: string;
}

export interface Hello {
  rank: number;
  worldSize: number;
  nonce: string;
  proof: string;
}

export type StoreRequest =
  | { id: number; op: 'set'; key: string; value: string }
  | { id: number; op: 'get'; key: string; timeoutMs: number }
  | { id: number; op: 'add'; key: string; delta: number }
  /** This rank begins an update; a {@link Pace} of one before may be there. There is no reply. */
  | { id: number; op: 'begin'; step: number; ms?: number; stage?: number }
  /** For whoever serves the store. There is no reply. */
  | { id: number; op: 'tell'; text: string }
  /** This rank was asked to stop and has begun no later update; `sum` of the reply: the last that any rank has begun. */
  | { id: number; op: 'pause'; step: number; timeoutMs: number }
  | { id: number; op: 'bye' };

/** Failures that a client turns into an MbridgeError. */
export interface StoreFailure {
  code: 'MB_STORE_REFUSED' | 'MB_STORE_CONFLICT' | 'MB_RENDEZVOUS_TIMEOUT' | 'MB_STOP_TIMEOUT' | 'MB_PEER_LOST';
  message: string;
}

/** `id` 0 answers the hello, and has the server's `proof` where it is welcome. `value` is base64. */
export interface StoreReply {
  id: number;
  proof?: string;
  value?: string;
  sum?: number;
  failure?: StoreFailure;
}

type Check = (value: unknown) => boolean;
type Shape = Readonly<Record<string, Check>>;

const text: Check = (value) => typeof value === 'string';
const integer: Check = (value) => Number.isSafeInteger(value);
const hex: Check = (value) => typeof value === 'string' && /^[0-9a-f]{32,64}$/.test(value);
/** Node's timers take no more. */
const milliseconds: Check = (value) => typeof value === 'number' && value >= 0 && value < 2 ** 31;
const is =
  (...wanted: readonly unknown[]): Check =>
  (value) =>
    wanted.includes(value);
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const GREETING: readonly Shape[] = [{ protocol: is(STORE_PROTOCOL), nonce: hex }];
const HELLO: readonly Shape[] = [{ rank: integer, worldSize: integer, nonce: hex, proof: hex }];
const REQUEST: readonly Shape[] = [
  { id: integer, op: is('set'), key: text, value: text },
  { id: integer, op: is('get'), key: text, timeoutMs: milliseconds },
  { id: integer, op: is('add'), key: text, delta: integer },
  { id: integer, op: is('begin'), step: integer, ms: optional(milliseconds), stage: optional(integer) },
  { id: integer, op: is('tell'), text },
  { id: integer, op: is('pause'), step: integer, timeoutMs: milliseconds },
  { id: integer, op: is('bye') },
];
const FAILURE: Shape = {
  code: is('MB_STORE_REFUSED', 'MB_STORE_CONFLICT', 'MB_RENDEZVOUS_TIMEOUT', 'MB_STOP_TIMEOUT', 'MB_PEER_LOST'),
  message: text,
};
const REPLY: readonly Shape[] = [
  {
    id: integer,
    proof: optional(hex),
    value: optional(text),
    sum: optional(integer),
    failure: optional((value) => matches(value, FAILURE)),
  },
];

function matches(value: unknown, shape: Shape): boolean {
  return isPlainObject(value) && Object.entries(shape).every(([key, check]) => check(value[key]));
}

/** One line as a message of the protocol; undefined where it is none, whatever it is. */
function parse(line: string, shapes: readonly Shape[]): unknown {
  try {
    const message: unknown = JSON.parse(line);
    return shapes.some((shape) => matches(message, shape)) ? message : undefined;
  } catch {
    return undefined;
  }
}

export const parseGreeting = (line: string): Greeting | undefined => parse(line, GREETING) as Greeting | undefined;
export const parseHello = (line: string): Hello | undefined => parse(line, HELLO) as Hello | undefined;
export const parseRequest = (line: string): StoreRequest | undefined =>
  parse(line, REQUEST) as StoreRequest | undefined;
export const parseReply = (line: string): StoreReply | undefined => parse(line, REPLY) as StoreReply | undefined;

/** What both sides prove to each other with: the token, for one connection of one rank. */
export interface Handshake {
  token: string;
  serverNonce: string;
  clientNonce: string;
  rank: number;
  worldSize: number;
}

/** Each side's proof is another one, so that neither can be sent back as the other's. */
export function proofOf(side: 'server' | 'client', handshake: Handshake): string {
  const { token, serverNonce, clientNonce, rank, worldSize } = handshake;
  const said = [STORE_PROTOCOL, side, serverNonce, clientNonce, rank, worldSize].join(' ');
  return createHmac('sha256', token).update(said).digest('hex');
}

export function isProof(given: string | undefined, side: 'server' | 'client', handshake: Handshake): boolean {
  const expected = Buffer.from(proofOf(side, handshake), 'hex');
  const bytes = Buffer.from(given ?? '', 'hex');
  return bytes.length === expected.length && timingSafeEqual(bytes, expected);
}

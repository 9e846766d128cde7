import { createHmac } from 'node:crypto';

/**
 * The store speaks lines of JSON over TCP. The server greets with a nonce; the client proves that it knows the run's
 * token with an HMAC of it, so the token itself never crosses the wire; then requests and replies are matched by id.
 */
export const STORE_PROTOCOL = 'mbridge-store/1';
/** Longest line either side accepts; values are communicator ids and short texts. */
export const MAX_LINE = 262_144;

export interface Greeting {
  protocol: string;
  nonce: string;
}

export interface Hello {
  rank: number;
  worldSize: number;
  proof: string;
}

export type StoreRequest =
  | { id: number; op: 'set'; key: string; value: string }
  | { id: number; op: 'get'; key: string; timeoutMs: number }
  | { id: number; op: 'add'; key: string; delta: number }
  /** This rank begins an update; there is no reply. */
  | { id: number; op: 'begin'; step: number }
  /** This rank was asked to stop and has begun no later update; `sum` of the reply: the last that any rank has begun. */
  | { id: number; op: 'pause'; step: number; timeoutMs: number }
  | { id: number; op: 'bye' };

/** Failures that a client turns into an MbridgeError. */
export interface StoreFailure {
  code: 'MB_STORE_REFUSED' | 'MB_STORE_CONFLICT' | 'MB_RENDEZVOUS_TIMEOUT' | 'MB_STOP_TIMEOUT' | 'MB_PEER_LOST';
  message: string;
}

/** `id` 0 answers the hello. `value` is base64. */
export interface StoreReply {
  id: number;
  value?: string;
  sum?: number;
  failure?: StoreFailure;
}

export function proofOf(token: string, nonce: string, rank: number, worldSize: number): string {
  return createHmac('sha256', token).update(`${nonce} ${rank} ${worldSize}`).digest('hex');
}

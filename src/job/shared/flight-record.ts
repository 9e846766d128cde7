/** A message of a p2p call: the k-th of two ranks in one direction. */
export interface FlightTransfer {
  kind: 'send' | 'receive';
  /** Global rank. */
  peer: number;
  /** From 1. */
  number: number;
}

/** A collective as one rank called it. */
export interface FlightCall {
  op: string;
  /** Of the group's collectives, or of its p2p calls, from 1; 0 for joining the group. */
  number: number;
  dtype: string;
  /** Elements of a rank; bytes of a p2p call. */
  count: number;
  /** 0 sum, 1 max of a reduction; the root, in the group, of a broadcast. */
  argument: number;
  /**
   * `entered`: the call has not returned. `issued`: it is on a GPU's queue. `failed`: it returned with an error.
   * `unfinished` ones are all but `finished`.
   */
  state: 'entered' | 'issued' | 'finished' | 'failed';
  /** Seconds before the record was taken. */
  entered_s_ago: number;
  /** When it finished, failed, or on a GPU was issued; null while it is entered. */
  ended_s_ago: number | null;
  /** Of a p2p call the first messages, and how many there are. */
  transfers: FlightTransfer[];
  transfer_count: number;
}

/** A group of a rank, with the last calls made on it, oldest first. */
export interface FlightGroup {
  /** The same for all members, and no other group's, hexadecimal. */
  id: string;
  name: string;
  /** Global ranks of the members; of more than 64 the first. */
  ranks: number[];
  size: number;
  /** Collectives, and p2p calls, entered. */
  collectives: number;
  exchanges: number;
  /** Messages of p2p calls to and from each of `ranks`. */
  sent: number[];
  received: number[];
  calls: FlightCall[];
}

/** What a rank's flight recorder holds: `rank-<r>/flight.json` of a run in which a collective hung or a rank died. */
export interface FlightRecord {
  rank: number;
  /** ISO 8601, when it was read. */
  time: string;
  /** The update that the rank was in, 0 before the first, and what it did, for how long; empty where it has not said. */
  step: number;
  phase: string;
  phase_s: number;
  groups: FlightGroup[];
}

// The layout of native/node/flight_recorder.h.
const MAGIC = 0x5246424d;
const VERSION = 1;
const GROUPS = 64;
const ENTRIES = 32;
const MEMBERS = 64;
const TRANSFERS = 4;
const HEADER_BYTES = 768;
const ENTRY_BYTES = 96;
const GROUP_BYTES = 112 + 12 * MEMBERS + ENTRIES * ENTRY_BYTES;
const OPS = { at: 128, bytes: 24 };
const DTYPES = { at: 704, bytes: 8 };

/** Of a record in memory. */
export const FLIGHT_BYTES = HEADER_BYTES + GROUPS * GROUP_BYTES;

/**
 * What is in a record's memory.
 * @param now CLOCK_MONOTONIC of its machine in nanoseconds, when it was read: process.hrtime.bigint()
 * @returns undefined where nothing has been recorded
 */
export function decodeFlightRecord(memory: Uint8Array, rank: number, now: bigint): FlightRecord | undefined {
  const reader = new Reader(memory, now);
  if (memory.length !== FLIGHT_BYTES || reader.u32(0) !== MAGIC || reader.u32(4) !== VERSION) return undefined;
  const phaseNs = reader.number(16);
  const groups = Array.from({ length: GROUPS }, (_, i) => HEADER_BYTES + i * GROUP_BYTES)
    .filter((at) => reader.view.getBigUint64(at + 48, true) !== 0n)
    .map((at) => groupAt(reader, at));
  return {
    rank,
    time: new Date().toISOString(),
    step: reader.number(24),
    phase: reader.text(32, 96),
    phase_s: phaseNs === 0 ? 0 : reader.ago(16),
    groups,
  };
}

function groupAt(reader: Reader, at: number): FlightGroup {
  const size = reader.i32(at + 56);
  const kept = Math.min(size, MEMBERS);
  const list = (offset: number): number[] => Array.from({ length: kept }, (_, i) => reader.i32(at + offset + 4 * i));
  const ranks = list(112);
  const written = reader.number(at + 96);
  const first = Math.max(0, written - ENTRIES);
  const calls = Array.from({ length: Math.min(written, ENTRIES) }, (_, i) => {
    return callAt(reader, at, at + 880 + ((first + i) % ENTRIES) * ENTRY_BYTES, ranks);
  });
  return {
    id: reader.view.getBigUint64(at + 48, true).toString(16),
    name: reader.text(at, 48),
    ranks,
    size,
    collectives: reader.number(at + 64),
    exchanges: reader.number(at + 72),
    sent: list(112 + 4 * MEMBERS),
    received: list(112 + 8 * MEMBERS),
    calls: calls.filter((call) => call !== null),
  };
}

function callAt(reader: Reader, group: number, at: number, ranks: readonly number[]): FlightCall | null {
  if (reader.u32(at + 52) === 0) return null; // being written
  const { view } = reader;
  const count = reader.u32(at + 48);
  const finished = reader.number(group + 80);
  const deviceCall = reader.number(at + 24);
  const state = stateOf({
    returned: reader.number(at + 16) !== 0,
    failed: view.getInt8(at + 43) !== 0,
    waits: finished >= 0 && deviceCall > finished,
  });
  // Of a GPU's last finished call, when that was seen; of those before only when they were issued is known.
  const seen = state === 'finished' && finished >= 0 && deviceCall === finished && reader.number(group + 88) !== 0;
  return {
    op: reader.text(OPS.at + OPS.bytes * view.getInt16(at + 40, true), OPS.bytes),
    number: reader.number(at),
    dtype: reader.text(DTYPES.at + DTYPES.bytes * view.getInt8(at + 42), DTYPES.bytes),
    count: reader.number(at + 32),
    argument: reader.i32(at + 44),
    state,
    entered_s_ago: reader.ago(at + 8),
    ended_s_ago: state === 'entered' ? null : reader.ago(seen ? group + 88 : at + 16),
    transfers: Array.from({ length: Math.min(count, TRANSFERS) }, (_, i): FlightTransfer => {
      const [peer, coded] = [reader.i32(at + 56 + 8 * i), reader.u32(at + 60 + 8 * i)];
      return { kind: coded % 2 === 1 ? 'send' : 'receive', peer: ranks[peer] ?? peer, number: coded >>> 1 };
    }),
    transfer_count: count,
  };
}

function stateOf(call: { returned: boolean; failed: boolean; waits: boolean }): FlightCall['state'] {
  if (!call.returned) return 'entered';
  if (call.failed) return 'failed';
  return call.waits ? 'issued' : 'finished';
}

class Reader {
  readonly view: DataView;
  readonly #memory: Uint8Array;
  readonly #now: bigint;

  constructor(memory: Uint8Array, now: bigint) {
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.#memory = memory;
    this.#now = now;
  }

  u32(at: number): number {
    return this.view.getUint32(at, true);
  }

  i32(at: number): number {
    return this.view.getInt32(at, true);
  }

  /** A 64-bit integer. */
  number(at: number): number {
    return Number(this.view.getBigInt64(at, true));
  }

  text(at: number, bytes: number): string {
    const end = this.#memory.indexOf(0, at);
    return Buffer.from(this.#memory.subarray(at, Math.min(end < 0 ? at + bytes : end, at + bytes))).toString();
  }

  /** Seconds since a time, to the microsecond: calls are told apart by it. */
  ago(at: number): number {
    return Math.max(0, Number((this.#now - this.view.getBigInt64(at, true)) / 1000n) / 1e6);
  }
}

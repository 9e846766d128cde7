import { MbridgeError } from '../../base/errors.js';
import { actionKey } from './schedule-exchanges.js';
import type { ComputeAction, ExchangeAction, Schedule, Transfer } from './actions.js';
import { inputOf, outputOf } from './stage-flow.js';

export interface SimulationResult {
  /** When the last rank ends, in the unit of the costs. */
  readonly makespan: number;
  /** When each rank ends. */
  readonly finish: readonly number[];
  /** The share of rank-time spent without work: 1 - work / (ranks * makespan). */
  readonly bubble: number;
}

export interface SimulationOptions {
  /** Time of the forward and the backward of one chunk. */
  readonly forward?: number;
  readonly backward?: number;
  /**
   * Exchanges run on a stream of their own: an exchange waits for the computes before it, a compute for the exchange
   * that brought its input. Otherwise a rank does one thing at a time.
   */
  readonly overlap?: boolean;
}

interface RankState {
  next: number;
  /** When the last compute, and the last exchange, ended. */
  time: number;
  comm: number;
  /** Actions done, by key. */
  readonly done: Set<string>;
  /** When inputs arrived, by the key of the action that consumes them. */
  readonly arrived: Map<string, number>;
  /** When each transfer of the current exchange is done. */
  ends: (number | undefined)[];
}

/**
 * Runs every rank's list with rendezvous semantics: a transfer happens when both ends stand at an exchange that holds
 * it, an exchange ends with its last transfer. The k-th send between two ranks meets the k-th receive, as libraries
 * without message tags do. Transfers take no time.
 * @throws MbridgeError (internal) MB_SCHEDULE_DEADLOCK when ranks wait for ever (naming them and what for),
 *   MB_SCHEDULE_MISMATCH when a send meets a receive of something else, MB_SCHEDULE_INPUT when an action or a send
 *   lacks its input, MB_SCHEDULE_ORDER when a chunk's micro-batches are out of order, MB_SCHEDULE_INCOMPLETE when a
 *   forward or backward is missing
 */
export function simulate(schedule: Schedule, options: SimulationOptions = {}): SimulationResult {
  const costs = { forward: options.forward ?? 1, backward: options.backward ?? 2, overlap: options.overlap ?? false };
  const states = schedule.ranks.map((): RankState => ({
    next: 0,
    time: 0,
    comm: 0,
    done: new Set(),
    arrived: new Map(),
    ends: [],
  }));
  while (schedule.ranks.map((_, rank) => advance(schedule, states, rank, costs)).includes(true));
  checkFinished(schedule, states);
  const finish = states.map((state) => state.time);
  const makespan = Math.max(...finish);
  const perChunk = costs.forward + (schedule.forwardOnly ? 0 : costs.backward);
  return { makespan, finish, bubble: 1 - (schedule.microBatches * schedule.chunks * perChunk) / makespan };
}

/** Runs a rank as far as it goes; whether it moved, or one of its transfers was done. */
function advance(
  schedule: Schedule,
  states: readonly RankState[],
  rank: number,
  costs: Required<SimulationOptions>,
): boolean {
  const state = states[rank]!;
  let moved = false;
  for (;;) {
    const action = schedule.ranks[rank]![state.next];
    if (action === undefined) return moved;
    if (action.kind !== 'exchange') {
      checkRunnable(schedule, rank, state, action);
      state.time = Math.max(state.time, state.arrived.get(actionKey(action)) ?? 0) + costs[action.kind];
      state.done.add(actionKey(action));
    } else {
      moved = meet(schedule, states, rank, action) || moved;
      const ends = action.transfers.map((_, index) => state.ends[index]);
      if (ends.includes(undefined)) return moved;
      state.comm = Math.max(...(ends as number[]));
      if (!costs.overlap) state.time = Math.max(state.time, state.comm);
      state.ends = [];
    }
    state.next++;
    moved = true;
  }
}

/** Does the transfers of this rank's exchange whose other end stands at the matching one. */
function meet(schedule: Schedule, states: readonly RankState[], rank: number, exchange: ExchangeAction): boolean {
  const state = states[rank]!;
  let met = false;
  exchange.transfers.forEach((transfer, index) => {
    if (state.ends[index] !== undefined) return;
    const peer = states[transfer.peer];
    if (peer === undefined || transfer.peer === rank) {
      throw broken('MISMATCH', `pipeline rank ${rank} has no peer for its ${text(transfer)}`);
    }
    if (transfer.direction === 'send') checkSend(rank, state, transfer);
    const other = schedule.ranks[transfer.peer]![peer.next];
    if (other?.kind !== 'exchange') return;
    const match = other.transfers.findIndex(
      (candidate, at) =>
        peer.ends[at] === undefined && candidate.peer === rank && candidate.direction !== transfer.direction,
    );
    const counterpart = other.transfers[match];
    if (counterpart === undefined) return;
    const [sender, send, receive] =
      transfer.direction === 'send' ? [rank, transfer, counterpart] : [transfer.peer, counterpart, transfer];
    const end = Math.max(state.time, state.comm, peer.time, peer.comm);
    deliver(schedule, states, sender, send, receive, end);
    state.ends[index] = peer.ends[match] = end;
    met = true;
  });
  return met;
}

function deliver(
  schedule: Schedule,
  states: readonly RankState[],
  sender: number,
  send: Transfer,
  receive: Transfer,
  time: number,
): void {
  const target = outputOf(schedule, sender, producerOf(send));
  const matches =
    target !== undefined &&
    target.rank === send.peer &&
    receive.what === send.what &&
    receive.microBatch === target.action.microBatch &&
    receive.chunk === target.action.chunk;
  if (!matches) {
    throw broken(
      'MISMATCH',
      `pipeline rank ${sender}'s ${text(send)} meets rank ${send.peer}'s ${text(receive)}, which is not its consumer`,
    );
  }
  const { arrived } = states[send.peer]!;
  const key = actionKey(target.action);
  if (arrived.has(key)) throw broken('MISMATCH', `pipeline rank ${send.peer} receives the input of ${key} twice`);
  arrived.set(key, time);
}

function checkSend(rank: number, state: RankState, send: Transfer): void {
  const producer = producerOf(send);
  if (state.done.has(actionKey(producer))) return;
  throw broken('INPUT', `pipeline rank ${rank} sends the result of ${actionKey(producer)} before it has run`);
}

function checkRunnable(schedule: Schedule, rank: number, state: RankState, action: ComputeAction): void {
  const { kind, microBatch, chunk } = action;
  const key = actionKey(action);
  const where = `pipeline rank ${rank} runs ${key}`;
  if (!(chunk >= 0 && chunk < schedule.chunks && microBatch >= 0 && microBatch < schedule.microBatches)) {
    throw broken('INCOMPLETE', `${where}, which is not part of the step`);
  }
  if (state.done.has(key)) throw broken('INCOMPLETE', `${where} twice`);
  if (microBatch > 0 && !state.done.has(actionKey({ kind, microBatch: microBatch - 1, chunk }))) {
    throw broken('ORDER', `${where} before micro-batch ${microBatch - 1}`);
  }
  if (kind === 'backward' && !state.done.has(actionKey({ ...action, kind: 'forward' }))) {
    throw broken('INPUT', `${where} before the forward`);
  }
  if (inputOf(schedule, rank, action) !== undefined && !state.arrived.has(key)) {
    throw broken('INPUT', `${where} before its input has been received`);
  }
}

function checkFinished(schedule: Schedule, states: readonly RankState[]): void {
  const waiting = states.flatMap((state, rank) => {
    const action = schedule.ranks[rank]![state.next];
    if (action?.kind !== 'exchange') return [];
    const open = action.transfers.filter((_, index) => state.ends[index] === undefined);
    return [{ rank, waits: open.map((transfer) => text(transfer)) }];
  });
  if (waiting.length > 0) {
    const lines = waiting.map(({ rank, waits }) => `rank ${rank} waits in ${waits.join(' and ')}`);
    throw broken('DEADLOCK', `the pipeline order deadlocks: ${lines.join('; ')}`, {
      ranks: waiting.map((w) => w.rank),
    });
  }
  const kinds: ComputeAction['kind'][] = schedule.forwardOnly ? ['forward'] : ['forward', 'backward'];
  const expected = schedule.microBatches * schedule.chunks * kinds.length;
  states.forEach(({ done }, rank) => {
    if (done.size !== expected) {
      throw broken(
        'INCOMPLETE',
        `pipeline rank ${rank} runs ${done.size} forwards and backwards instead of ${expected}`,
      );
    }
  });
}

function producerOf(send: Transfer): ComputeAction {
  return { kind: send.what === 'activation' ? 'forward' : 'backward', microBatch: send.microBatch, chunk: send.chunk };
}

function text({ direction, what, peer, microBatch, chunk }: Transfer): string {
  const preposition = direction === 'send' ? 'to' : 'from';
  return `${direction} of ${what} ${microBatch} (chunk ${chunk}) ${preposition} rank ${peer}`;
}

function broken(code: string, message: string, details: Record<string, unknown> = {}): MbridgeError {
  return new MbridgeError('internal', `MB_SCHEDULE_${code}`, message, { details });
}

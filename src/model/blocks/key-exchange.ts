import type { Strided, Tensor } from '../../engine/tensor.js';
import type { Pending } from '../parallel/beside.js';
import type { KeyTurn } from '../parallel/context-parallel.js';
import type { StageEnv } from './stage-env.js';

/** Adds to the gradient of one of this rank's chunks of keys, 0 or 1. */
export type AddToKeys = (chunk: number, gradient: Tensor) => void;

/**
 * How the ranks of a sequence see each other's keys and values, and give back the gradients of them: turn by turn, in the order
 * of `ContextParallel.turns`. Tensors are of a rank's two chunks, [2, batch * chunk, 2 * kvWidth].
 */
export interface KeyExchange {
  /** This rank's. */
  readonly own: Tensor;
  /** Takes this rank's keys and values, and sends them on their way. */
  start(keysAndValues: Strided): void;
  /** The same for a backward. */
  startAgain(keysAndValues: Strided): void;
  /** Those of the rank whose turn it is, of which this one sees `turn.receives` chunks. */
  keys(turn: KeyTurn): Tensor;
  /** Where the gradient of them goes. */
  gradient(turn: KeyTurn): Tensor;
  /** Sends that back; adds what has come here of the turn before. */
  giveBack(turn: KeyTurn, add: AddToKeys): void;
  /** Adds the rest. */
  finish(add: AddToKeys): void;
}

export function keyExchange(env: StageEnv): KeyExchange {
  return env.cp.commType === 'p2p' ? new KeyRing(env) : new GatheredKeys(env);
}

/** Room for the chunks of `ranks` ranks, shared by the layers. */
function roomFor(env: StageEnv, key: string, ranks = 1): Tensor {
  const { tokens, kvWidth } = env.sizes;
  return env.scratch(`keys.${key}`, [2 * ranks, tokens / 2, 2 * kvWidth]);
}

/** All ranks' keys at once, and one sum of all their gradients. */
class GatheredKeys implements KeyExchange {
  readonly own: Tensor;
  readonly #env: StageEnv;
  readonly #all: Tensor;
  readonly #gradients: Tensor;
  #gathering: Pending | null = null;
  #summing: Pending | null = null;

  constructor(env: StageEnv) {
    this.#env = env;
    this.#all = roomFor(env, 'all', env.cp.size);
    this.#gradients = roomFor(env, 'gradients', env.cp.size);
    this.own = roomFor(env, 'own');
  }

  start(keysAndValues: Strided): void {
    this.#env.ops.copyRows(keysAndValues, this.own.columns());
    this.#gathering = this.#env.cp.startGather(this.own, this.#all);
  }

  startAgain(keysAndValues: Strided): void {
    // A forward that was run again has just left them.
    if (!this.#env.drops('attention')) this.start(keysAndValues);
  }

  keys({ from }: KeyTurn): Tensor {
    this.#gathering?.wait();
    this.#gathering = null;
    return chunksOf(this.#all, from);
  }

  gradient({ from }: KeyTurn): Tensor {
    return chunksOf(this.#gradients, from);
  }

  giveBack(turn: KeyTurn): void {
    const { ops, cp } = this.#env;
    // What this rank did not see, it adds nothing to; nor to its own, which it adds to by itself.
    if (turn.receives === 1) ops.fill(this.gradient(turn).rows(1, 1), 0);
    if (turn.number < cp.size - 1) return;
    const own = chunksOf(this.#gradients, cp.rank);
    ops.fill(own, 0);
    this.#summing = cp.startReduceScatter(this.#gradients, own);
  }

  finish(add: AddToKeys): void {
    const sum = this.#summing?.wait() as Tensor;
    this.#summing = null;
    for (const chunk of [0, 1]) add(chunk, sum.rows(chunk, 1));
  }
}

/**
 * The keys of one other rank at a time, those of the next coming meanwhile; gradients go back while the next turn computes.
 * Memory does not depend on the number of ranks.
 */
class KeyRing implements KeyExchange {
  readonly own: Tensor;
  readonly #env: StageEnv;
  /** Of this turn and of the next, or of the one before. */
  readonly #received: readonly Tensor[];
  readonly #given: readonly Tensor[];
  readonly #returned: readonly Tensor[];
  #next: Pending | null = null;
  #returning: { readonly pending: Pending; readonly turn: KeyTurn } | null = null;

  constructor(env: StageEnv) {
    const pair = (key: string): Tensor[] => [0, 1].map((i) => roomFor(env, `${key}.${i}`));
    this.#env = env;
    this.own = roomFor(env, 'own');
    this.#received = pair('received');
    this.#given = pair('given');
    this.#returned = pair('returned');
  }

  start(keysAndValues: Strided): void {
    this.#env.ops.copyRows(keysAndValues, this.own.columns());
    this.#fetch(1);
  }

  startAgain(keysAndValues: Strided): void {
    this.start(keysAndValues);
  }

  keys({ number }: KeyTurn): Tensor {
    const keys = this.#next?.wait();
    if (number + 1 < this.#env.cp.size) this.#fetch(number + 1);
    return keys as Tensor;
  }

  gradient({ number }: KeyTurn): Tensor {
    return this.#given[number % 2] as Tensor;
  }

  giveBack(turn: KeyTurn, add: AddToKeys): void {
    const returned = this.#returned[turn.number % 2] as Tensor;
    const pending = this.#env.cp.startExchange(returned, [
      { kind: 'send', peer: turn.from, tensor: this.gradient(turn).rows(0, turn.receives) },
      { kind: 'receive', peer: turn.to, tensor: returned.rows(0, turn.sends) },
    ]);
    this.finish(add);
    this.#returning = { pending, turn };
  }

  finish(add: AddToKeys): void {
    if (this.#returning === null) return;
    const { pending, turn } = this.#returning;
    this.#returning = null;
    const found = pending.wait();
    for (let chunk = 0; chunk < turn.sends; chunk++) add(chunk, found.rows(chunk, 1));
  }

  /** Sends a rank the chunks that it sees, and receives those that this one sees. */
  #fetch(number: number): void {
    const { cp } = this.#env;
    const turn = cp.turn(number);
    const received = this.#received[number % 2] as Tensor;
    this.#next = cp.startExchange(received, [
      { kind: 'send', peer: turn.to, tensor: this.own.rows(0, turn.sends) },
      { kind: 'receive', peer: turn.from, tensor: received.rows(0, turn.receives) },
    ]);
  }
}

function chunksOf(all: Tensor, rank: number): Tensor {
  return all.rows(2 * rank, 2);
}

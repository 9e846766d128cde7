import { MbridgeError } from '../../base/errors.js';
import { PhiloxStream, type PhiloxState } from './philox.js';

/** The stream of what is the same on all tensor-parallel ranks; also the one in use outside every fork. */
const DATA_PARALLEL_RNG = 'data-parallel-rng';
/** The stream of what differs between tensor-parallel ranks. */
const MODEL_PARALLEL_RNG = 'model-parallel-rng';
/** The stream of what differs between experts. */
const EXPERT_PARALLEL_RNG = 'expert-parallel-rng';

export interface ManualSeedOptions {
  /** Seed of the run, a positive integer. */
  readonly seed: number;
  readonly tpRank: number;
  readonly ppRank: number;
  readonly epRank?: number;
  readonly etpRank?: number;
  readonly dpRank?: number;
  /** Give data-parallel replicas streams of their own. */
  readonly dataParallelRandomInit?: boolean;
}

/** State of every stream, as JSON. */
export type RngState = Readonly<Record<string, PhiloxState>>;

/**
 * Named streams of random numbers, passed to what draws from them. Weights never do: they come from a counter-based
 * stream that does not depend on the layout.
 */
export class RngStreams {
  readonly #streams = new Map<string, PhiloxStream>();
  readonly #active: PhiloxStream[] = [];

  /** @throws MbridgeError MB_RNG_DUPLICATE_NAME, MB_RNG_DUPLICATE_SEED (two equal streams are a mistake), MB_RNG_SEED */
  add(name: string, seed: number): void {
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw rngError('SEED', `the seed of '${name}' is not an integer >= 0: ${seed}`);
    if (this.#streams.has(name)) throw rngError('DUPLICATE_NAME', `random stream '${name}' already exists`);
    for (const [other, stream] of this.#streams) {
      if (stream.seed !== seed) continue;
      throw rngError('DUPLICATE_SEED', `random streams '${other}' and '${name}' would both have the seed ${seed}`, {
        hint: 'choose another rng.seed or other parallel sizes',
      });
    }
    this.#streams.set(name, new PhiloxStream(seed));
  }

  get names(): string[] {
    return [...this.#streams.keys()];
  }

  /** The stream to draw from: that of the innermost fork, outside all forks the data-parallel one. */
  get current(): PhiloxStream {
    return this.#active.at(-1) ?? this.stream(DATA_PARALLEL_RNG);
  }

  /** @throws MbridgeError MB_RNG_UNKNOWN */
  stream(name: string): PhiloxStream {
    const stream = this.#streams.get(name);
    if (stream !== undefined) return stream;
    throw rngError('UNKNOWN', `there is no random stream '${name}'`, { hint: `streams: ${this.names.join(', ')}` });
  }

  /**
   * Runs `run` with `current` set to a stream, which goes on from where it was last left, whatever the nesting.
   * @param run synchronous: a fork that outlived its call would change the stream of others
   * @throws MbridgeError MB_RNG_UNKNOWN, MB_RNG_ASYNC
   */
  fork<T>(name: string, run: (stream: PhiloxStream) => T): T {
    const stream = this.stream(name);
    const depth = this.#active.push(stream);
    try {
      const result = run(stream);
      if (result instanceof Promise) throw rngError('ASYNC', `the fork of random stream '${name}' returned a promise`);
      return result;
    } finally {
      this.#active.length = depth - 1;
    }
  }

  save(): RngState {
    return Object.fromEntries([...this.#streams].map(([name, stream]) => [name, stream.state]));
  }

  /** Puts every stream where it was when `state` was saved. @throws MbridgeError MB_RNG_STATE if the names differ */
  restore(state: RngState): void {
    const found = Object.keys(state).sort().join(', ');
    const expected = this.names.sort().join(', ');
    if (found !== expected) {
      throw rngError('STATE', `the saved state has the random streams ${found}; this run has ${expected}`);
    }
    for (const [name, saved] of Object.entries(state)) this.stream(name).state = saved;
  }
}

/**
 * The streams of one rank, by Megatron's seed table: with base = seed + 100 pp (+ 10 dp where replicas differ),
 * data-parallel-rng has base, model-parallel-rng base + 2718 + tp, expert-parallel-rng base + 1024 + 100 ep + etp.
 * @throws MbridgeError MB_RNG_SEED, MB_RNG_RANK, MB_RNG_DUPLICATE_SEED (at 100 ep + etp = 1694 + tp)
 */
export function modelParallelManualSeed(options: ManualSeedOptions): RngStreams {
  const { seed, tpRank, ppRank, epRank = 0, etpRank = tpRank, dpRank = 0, dataParallelRandomInit = false } = options;
  if (!Number.isSafeInteger(seed) || seed < 1)
    throw rngError('SEED', `rng.seed must be a positive integer, got ${seed}`);
  for (const [name, rank] of Object.entries({ tpRank, ppRank, epRank, etpRank, dpRank })) {
    if (!Number.isSafeInteger(rank) || rank < 0) throw rngError('RANK', `${name} must be an integer >= 0, got ${rank}`);
  }
  const base = seed + 100 * ppRank + (dataParallelRandomInit ? 10 * dpRank : 0);
  const streams = new RngStreams();
  streams.add(DATA_PARALLEL_RNG, base);
  streams.add(MODEL_PARALLEL_RNG, base + 2718 + tpRank);
  streams.add(EXPERT_PARALLEL_RNG, base + 1024 + 100 * epRank + etpRank);
  return streams;
}

function rngError(code: string, message: string, options: { hint?: string } = {}): MbridgeError {
  return new MbridgeError('config', `MB_RNG_${code}`, message, options);
}

import type { Store } from '../rendezvous/store.js';
import { StopRequests, listenForSignals, type StopSignal } from '../shared/stop-signals.js';

/** The store's key of the signal that ends the run: whichever rank gets it tells all. */
const STOP_KEY = 'run/stop';
/** Timers of Node cannot be longer. */
const WATCH_MS = 2 ** 30;

export interface StopOptions {
  /** Whether nobody else kills this process where it does not stop. */
  readonly alone: boolean;
  /** Called for a request that this process has nothing to finish for, and for one that ends it at once. Does not return. */
  readonly leave: (signal: StopSignal) => void;
  readonly say: (text: string) => void;
  /** Called once, when the program is the one to end in order. */
  readonly onLooping: () => void;
}

/**
 * The requests to stop that reach this process: its own signals, its launcher's word, and what another rank was asked.
 * A request is kept for the training loop, which ends after the update in flight. A signal of its own before the first
 * ends the process: there is nothing to finish.
 */
export class StopState {
  readonly #options: StopOptions;
  readonly #requests = new StopRequests();
  #store: Store | undefined;
  #looping = false;

  constructor(options: StopOptions) {
    this.#options = options;
    listenForSignals((signal) => {
      this.take(signal, true);
    });
  }

  get requested(): 'no' | StopSignal {
    return this.#requests.first;
  }

  /** The program has begun a step or asks for requests: from now on it is the one to end in order. */
  looping(): void {
    if (this.#looping) return;
    this.#looping = true;
    this.#options.onLooping();
  }

  /** @param own whether it came to this process alone: the other ranks may not know of it */
  take(signal: StopSignal, own: boolean): void {
    const { alone, leave, say } = this.#options;
    const how = this.#requests.take(signal);
    if (how === 'killed' && alone) leave(signal);
    if (how !== 'asked') return;
    if (own && !this.#looping) {
      leave(signal);
      return;
    }
    say(`${signal}: stopping after this step`);
    if (own) this.#store?.set(STOP_KEY, Buffer.from(signal)).catch(() => undefined);
  }

  /** Hears of what other ranks are asked, through the store, until it is closed. */
  async watch(store: Store): Promise<void> {
    this.#store = store;
    try {
      this.take(Buffer.from(await store.get(STOP_KEY, WATCH_MS)).toString() as StopSignal, false);
    } catch {
      // the run ends in another way
    }
  }
}

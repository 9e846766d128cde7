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
}

/**
 * The requests to stop that reach this process: its own signals, its launcher's word, and what another rank was asked.
 * A request is kept for the training loop, which ends after the update in flight; before the first there is nothing to
 * finish, and the process leaves.
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
    this.#looping = true;
  }

  /** @param tell whether the other ranks may not know of it */
  take(signal: StopSignal, tell: boolean): void {
    const { alone, leave, say } = this.#options;
    const how = this.#requests.take(signal);
    if (how === 'killed' && alone) leave(signal);
    if (how !== 'asked') return;
    if (!this.#looping) {
      leave(signal);
      return;
    }
    say(`${signal}: stopping after this step`);
    if (tell) this.#store?.set(STOP_KEY, Buffer.from(signal)).catch(() => undefined);
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

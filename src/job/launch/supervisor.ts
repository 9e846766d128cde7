import { isOrderly } from '../shared/root-cause.js';
import { StopRequests, type StopSignal } from '../shared/stop-signals.js';
import type { WorkerExit } from '../shared/worker-exit.js';
import type { WorkerProcess } from './worker-process.js';

/** After the first failure, the others get this long to fail by themselves: each can then say what it saw. */
const PEERS_END_MS = 2_000;
/** Where one was killed there is little that they could say, and a run that goes on from memory waits for their end. */
const AFTER_KILL_MS = 500;
/** From SIGTERM to SIGKILL after a failure; the whole must end within 5 s. */
const TERM_TO_KILL_MS = 1_000;

/** How the workers ended, and what was asked of them. */
export interface Supervision {
  exits: WorkerExit[];
  /** The first signal that asked the run to stop. */
  stop: 'no' | StopSignal;
  /** Ranks that did not end in the grace period, and were killed. */
  stubborn: number[];
  /** Why the launcher gave the run up, if it did. */
  givenUp?: GivenUp;
}

/** Why a launcher ends a run of which no rank has failed by itself. */
export interface GivenUp {
  readonly code: string;
  readonly exitCode: number;
  readonly message: string;
  readonly hint?: string;
  /** Whether the run may begin again. */
  readonly again: boolean;
}

/** Watches workers until the last has ended: stops all when one fails, and passes on what the user asks by signals. */
export class Supervisor {
  readonly #workers: readonly WorkerProcess[];
  readonly #graceMs: number;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #requests = new StopRequests();
  readonly #stubborn: number[] = [];
  readonly #onFail: () => void;
  readonly #bringsState: boolean;
  #failing = false;
  #givenUp: GivenUp | undefined;

  /**
   * @param onFail called once, with the first failure
   * @param bringsState whether workers have something to finish also before their first update: state to be saved
   */
  constructor(
    workers: readonly WorkerProcess[],
    graceMs: number,
    onFail: () => void = () => undefined,
    bringsState = false,
  ) {
    this.#workers = workers;
    this.#graceMs = graceMs;
    this.#onFail = onFail;
    this.#bringsState = bringsState;
  }

  /** Why the run was given up, until now. */
  get givenUp(): GivenUp | undefined {
    return this.#givenUp;
  }

  async wait(): Promise<Supervision> {
    const exits = await Promise.all(
      this.#workers.map(async (worker) => {
        const exit = await worker.exited;
        if (!isOrderly(exit)) this.fail(exit.signal === 'SIGKILL');
        return exit;
      }),
    );
    for (const timer of this.#timers) clearTimeout(timer);
    const givenUp = this.#givenUp === undefined ? {} : { givenUp: this.#givenUp };
    return { exits, stop: this.#requests.first, stubborn: this.#stubborn, ...givenUp };
  }

  /** One worker has failed: the others end too, by themselves or not. */
  fail(killed = false): void {
    if (this.#failing) return;
    this.#failing = true;
    this.#onFail();
    if (killed) {
      this.#after(AFTER_KILL_MS, () => {
        this.killAll();
      });
      return;
    }
    this.#after(PEERS_END_MS, () => {
      for (const worker of this.#running()) worker.end('SIGTERM');
    });
    this.#after(PEERS_END_MS + TERM_TO_KILL_MS, () => {
      this.killAll();
    });
  }

  /** A rank is stuck where no time limit of its own holds, or a node is gone. */
  giveUp(reason: GivenUp): void {
    this.#givenUp ??= reason;
    this.fail();
  }

  /** The first request asks, if any worker has something to finish; else, and by the second that is no warning, all are killed. */
  request(signal: StopSignal, own = true): 'asked' | 'repeated' | 'killed' {
    const how = this.#requests.take(signal, own);
    const busy = this.#bringsState || this.#workers.some((worker) => worker.looping);
    const idle = how === 'asked' && !busy;
    if (how === 'killed' || idle) this.killAll();
    if (idle) return 'killed';
    if (how !== 'asked') return how;
    for (const worker of this.#running()) worker.ask(signal);
    this.#after(this.#graceMs, () => {
      this.#killStubborn(this.#running());
    });
    return how;
  }

  /** A worker's work is done: what is left of it (a library's clean-up) may hang, but not for ever. */
  done(rank: number): void {
    this.#after(this.#graceMs, () => {
      this.#killStubborn(this.#running().filter((worker) => worker.rank === rank));
    });
  }

  killAll(): void {
    for (const worker of this.#running()) worker.end('SIGKILL');
  }

  #killStubborn(workers: readonly WorkerProcess[]): void {
    for (const worker of workers) {
      this.#stubborn.push(worker.rank);
      worker.end('SIGKILL');
    }
  }

  #running(): WorkerProcess[] {
    return this.#workers.filter((worker) => worker.running);
  }

  #after(ms: number, act: () => void): void {
    this.#timers.push(setTimeout(act, ms));
  }
}

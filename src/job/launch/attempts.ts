import type { SavedCheckpoint } from '../shared/messages.js';
import type { RunNumbers } from '../shared/prometheus-endpoint.js';
import type { StopSignal } from '../shared/stop-signals.js';
import type { KeptMemory } from './kept-memory.js';

/** What the attempts of a run have in common. */
export interface Attempts {
  readonly started: number;
  /** Of the attempt, from 0. */
  number: number;
  /** Attempts in a row that have saved and copied nothing. */
  idle: number;
  /** The last update that was saved or copied before this attempt. */
  before: number;
  /** The last checkpoint. */
  saved: SavedCheckpoint | undefined;
  /** Listens from an attempt on until the next one does; `late` came when no rank of it was left. */
  signals: { unlisten: () => void; late: StopSignal | null };
  readonly memory: KeptMemory | null;
  /** What is scraped of the run. */
  readonly numbers: RunNumbers | undefined;
}

/** Before the first. */
export function noAttempts(memory: KeptMemory | null, numbers: RunNumbers | undefined): Attempts {
  const signals = { unlisten: () => undefined, late: null };
  return { started: performance.now(), number: 0, idle: 0, before: 0, saved: undefined, signals, memory, numbers };
}

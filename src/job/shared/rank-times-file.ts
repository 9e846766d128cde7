import { join } from 'node:path';
import type { Pace } from '../../base/pace.js';
import { outputLine, type OutputFacts } from '../../outputs/line.js';
import { BestEffortFile, openAtLineStart } from './best-effort-file.js';
import { PaceWindow } from './pace-window.js';
import { RANK_TIMES_FILE } from './run-folder.js';
import type { Straggler } from './straggler-notice.js';

/** Updates over which a line of the file is. */
const WINDOW = 10;

/**
 * The run's `rank-times.ndjson`, where there is more than one rank: what each rank's own work takes, and which are slow.
 * Written by whoever serves the store, which hears of every rank.
 */
export class RankTimesFile {
  readonly #file: BestEffortFile;
  readonly #window: PaceWindow;
  readonly #alone: boolean;
  #step = 0;

  constructor(runDir: string, worldSize: number, warn: (text: string) => void) {
    this.#file = new BestEffortFile(join(runDir, RANK_TIMES_FILE), openAtLineStart, warn);
    this.#window = new PaceWindow(worldSize, WINDOW);
    this.#alone = worldSize === 1;
  }

  /** @param step the update that the rank begins; the pace is of one before */
  note(rank: number, step: number, pace: Pace): void {
    if (this.#alone) return;
    this.#step = Math.max(this.#step, step - 1);
    const paces = this.#window.note(rank, step, pace);
    if (paces === undefined) return;
    const stages = paces.map(({ stage }) => stage);
    const staged = stages.some((stage) => stage !== stages[0]);
    const rounded = paces.map(({ ms }) => Math.round(ms * 100) / 100);
    this.#append('rank_times', { step: this.#step, ms: rounded, ...(staged ? { stages } : {}) });
  }

  stragglers(stragglers: readonly Straggler[]): void {
    this.#append('straggler', { step: this.#step, ranks: stragglers });
  }

  close(): void {
    this.#file.close();
  }

  #append<T extends 'rank_times' | 'straggler'>(type: T, facts: OutputFacts<T>): void {
    this.#file.append(Buffer.from(outputLine(type, facts)));
  }
}

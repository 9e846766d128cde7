import { EXIT } from '../../base/errors.js';
import type { FlightRecord } from '../shared/flight-record.js';
import { flightSentence } from '../shared/flight-text.js';
import { writeFlightRecord } from '../shared/run-folder.js';
import type { WorkerExit } from '../shared/worker-exit.js';
import { PEER_LOST } from '../shared/worker-report.js';
import type { WorkerProcess } from './worker-process.js';

/** Who was in which collective as a run failed: at the first failure, and once all ranks have ended. */
export interface FlightViews {
  readonly atFailure: readonly FlightRecord[];
  readonly atEnd: readonly FlightRecord[];
}

const NOTHING: FlightViews = { atFailure: [], atEnd: [] };

/** Calls of a group that are told to another node's launcher. */
const TOLD_CALLS = 3;
const MOST_TOLD_CALLS = 8;

/** What the flight recorders of a node's ranks show. */
export class FlightReport {
  readonly #workers: readonly WorkerProcess[];
  #atFailure: readonly FlightRecord[] | undefined;

  constructor(workers: readonly WorkerProcess[]) {
    this.#workers = workers;
  }

  /** To be called with the first failure: a rank that hung may wake up, and call what the others waited for. */
  failed(): void {
    this.#atFailure = this.now();
  }

  now(): FlightRecord[] {
    return this.#workers.flatMap((worker) => worker.flight() ?? []);
  }

  /** Empty where nothing has failed. */
  views(): FlightViews {
    return this.#atFailure === undefined ? NOTHING : { atFailure: this.#atFailure, atEnd: this.now() };
  }

  close(): void {
    for (const worker of this.#workers) worker.forget();
  }
}

/**
 * After a hang, or a rank's death: who waited in what, where that can be told, and each rank's `flight.json` in the
 * run's folder. Other failures say enough.
 * @param exitCode of the run, as far as it is known here
 * @param views those of all nodes
 * @param here ranks whose files are written
 */
export function whoWaited(
  runDir: string,
  exitCode: number,
  exits: readonly WorkerExit[],
  views: FlightViews,
  here: readonly number[],
): string | undefined {
  const died = exits.filter((exit) => exit.report === undefined && !exit.ended && !exit.done).map(({ rank }) => rank);
  const silent = exits.filter((exit) => exit.report === undefined && exit.ended && !exit.done).map(({ rank }) => rank);
  const hung = exitCode === EXIT.hang;
  // Of another node it is known only that it was lost.
  const lost = exitCode === EXIT.worker && exits.some(({ report }) => report?.code === PEER_LOST);
  if (!hung && !lost && died.length === 0) return undefined;
  // Where a rank died, the others go on until they miss it.
  const records = hung ? views.atFailure : views.atEnd;
  try {
    for (const record of records) if (here.includes(record.rank)) writeFlightRecord(runDir, record);
  } catch {
    // a full disk does not hide what went wrong
  }
  return flightSentence(records, died, silent);
}

/** A record without the calls that another node has no need of. */
export function briefRecord(record: FlightRecord): FlightRecord {
  const groups = record.groups.map((group) => {
    const from = Math.max(0, group.calls.length - TOLD_CALLS);
    return {
      ...group,
      calls: group.calls.filter(({ state }, i) => i >= from || state !== 'finished').slice(0, MOST_TOLD_CALLS),
    };
  });
  return { ...record, groups };
}

import type { ParkEvent } from '../../bench/run/park-worker.js';
import { eventsOf, type BenchEvent } from '../../bench/run/worker-events.js';
import { percent, round } from './numbers.js';
import type { Findings, Row } from './report.js';

/** Updates whose loss or norm is another than in a run that was not parked. NaN where the runs have not the same updates. */
export function differingUpdates(parked: readonly BenchEvent[], undisturbed: readonly BenchEvent[]): number {
  const [found, wanted] = [parked, undisturbed].map((events) => eventsOf<BenchEvent>(events, 'step'));
  if (found === undefined || wanted === undefined || found.length !== wanted.length || found.length === 0) return NaN;
  const same = (key: string, i: number): boolean => found[i]?.[key] === wanted[i]?.[key];
  return found.filter((_, i) => !(same('step', i) && same('loss', i) && same('grad_norm', i))).length;
}

/** Parking and unparking against the copy of the state, as a table. */
export function parkFindings(events: readonly ParkEvent[], updates: number, differing: number): Findings {
  const rows = [...events]
    .sort((a, b) => a.rank - b.rank)
    .map((event): Row => {
      const rate = (ms: number): number => event.stateBytes / ms / 1e6;
      return {
        rank: event.rank,
        state_bytes: event.stateBytes,
        first_park_ms: round(event.firstParkMs),
        park_ms: round(event.park.median),
        park_gb_per_s: round(rate(event.park.median)),
        park_copy_percent: percent(rate(event.park.median), event.toHostGBs),
        unpark_ms: round(event.unpark.median),
        unpark_gb_per_s: round(rate(event.unpark.median)),
        unpark_copy_percent: percent(rate(event.unpark.median), event.toDeviceGBs),
        planned_bytes: event.plannedBytes,
        freed_bytes: event.freedBytes,
      };
    });
  return {
    tables: [
      { table: 'park', title: 'a model parked in pinned host memory, and back', rows },
      {
        table: 'updates',
        title: 'updates that differ from those of a run that was not parked',
        rows: [{ updates, differing }],
      },
    ],
    notes: [
      'first park: with the host memory taken; of copy: of one copy between the device and pinned memory, all ranks at once',
    ],
  };
}

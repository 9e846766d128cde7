import type { GenerateBenchOptions, GenerateEvent } from '../../bench/run/generate-worker.js';
import type { LogprobsEvent } from '../../bench/run/logprobs-worker.js';
import { percent, round, timeOf } from './numbers.js';
import type { Findings, Row } from './report.js';

/** Steps of generation against the time that memory takes, as a table. */
export function generationFindings(
  events: readonly GenerateEvent[],
  { rows, promptTokens, tokens }: GenerateBenchOptions,
): Findings {
  const table = events.map((event): Row => {
    const times = [...event.stepMs].sort((a, b) => a - b);
    const ms = times[Math.floor(times.length / 2)] ?? NaN;
    const boundMs = (event.weightBytes + event.cacheBytes) / event.bandwidthGBs / 1e6;
    return {
      rank: event.rank,
      rows,
      ...timeOf({ median: ms, min: times[0] ?? NaN, max: times.at(-1) ?? NaN }, 'step'),
      tokens_per_s: round((1000 * rows) / ms),
      weights_bytes: event.weightBytes,
      cache_bytes: event.cacheBytes,
      bound_ms: round(boundMs),
      bound_percent: percent(boundMs, ms),
      prompts_s: round(event.promptSeconds),
      planned_bytes: event.plannedBytes,
    };
  });
  return {
    tables: [
      {
        table: 'generation',
        title: `generation of ${tokens} tokens after prompts of ${promptTokens}, each replica`,
        rows: table,
      },
    ],
    notes: [
      'bound: weights once, and keys and values at mid-length, at the rate of a copy; per rank, without communication',
    ],
  };
}

/** Sampled log-probabilities against those of the training forward, as a table. */
export function logprobsFindings(events: readonly LogprobsEvent[]): Findings {
  const rows = events.map(({ rank, compared, differing, mean, most }): Row => ({
    rank,
    compared,
    differing,
    mean_nats: round(mean),
    most_nats: round(most),
  }));
  return {
    tables: [{ table: 'logprobs', title: 'log-probabilities of sampled tokens, and of the training forward', rows }],
    notes: ['differing: in any bit; mean and most: distance'],
  };
}

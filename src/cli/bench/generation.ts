import type { GenerateBenchOptions, GenerateEvent } from '../../bench/run/generate-worker.js';
import type { LogprobsEvent } from '../../bench/run/logprobs-worker.js';
import { percent, round } from './numbers.js';
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
      'ms a step': round(ms),
      range: `${round(times[0] ?? NaN)}-${round(times.at(-1) ?? NaN)}`,
      'tokens/s': round((1000 * rows) / ms),
      'weights GB': round(event.weightBytes / 1e9),
      'cache GB': round(event.cacheBytes / 1e9),
      'bound ms': round(boundMs),
      'of bound %': percent(boundMs, ms),
      'prompts s': round(event.promptSeconds),
      'planned GiB': round(event.plannedBytes / 2 ** 30),
    };
  });
  return {
    tables: [{ title: `generation of ${tokens} tokens after prompts of ${promptTokens}, each replica`, rows: table }],
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
    mean: round(mean),
    most: round(most),
  }));
  return {
    tables: [{ title: 'log-probabilities of sampled tokens, and of the training forward', rows }],
    notes: ['differing: in any bit; mean and most: distance in nats'],
  };
}

import { formatBytes, formatCount, formatSeconds } from '../../base/format-amount.js';
import type { ResultEvent, WorkerEvent } from './messages.js';

/** What the standard training loop says of a run that got to its end. */
export interface TrainingResult extends ResultEvent {
  /** The last update. */
  steps: number;
  loss: number | null;
  /** Of the first update of this process; null where none was run. */
  first_loss: number | null;
  /** Updates, and positions of samples, of this process alone. */
  updates: number;
  tokens_trained: number;
  /** Where the time went; `data` is a part of `updates`. */
  time_s: { start: number; updates: number; data: number; evaluation: number; saves: number };
  /** Of the rank that reports: its GPU's, or its process's on a CPU. */
  peak_memory_bytes: number;
  /** Of the rank that reports: the arena, and what is allowed for beside it. */
  planned_memory_bytes: number;
}

export function isTrainingResult(event: WorkerEvent): event is TrainingResult {
  return event.type === 'result' && typeof event['time_s'] === 'object' && typeof event['updates'] === 'number';
}

/** What a run has come to, for people: what was trained, where the time went, memory against its plan. */
export function formatSummary(result: TrainingResult): string[] {
  const { updates, loss, first_loss: first, tokens_trained: tokens, time_s: time } = result;
  if (updates === 0) return [];
  const losses = loss === null || first === null ? [] : [`loss ${first.toFixed(4)} -> ${loss.toFixed(4)}`];
  const rate = time.updates > 0 ? [`${formatCount(tokens / time.updates)} tokens/s`] : [];
  const trained = `trained ${updates} update${updates === 1 ? '' : 's'}`;
  const parts = [
    `start ${formatSeconds(time.start)}`,
    `updates ${formatSeconds(time.updates)} (waiting for data ${formatSeconds(time.data)})`,
    ...(time.evaluation >= 0.05 ? [`evaluation ${formatSeconds(time.evaluation)}`] : []),
    ...(time.saves >= 0.05 ? [`saves ${formatSeconds(time.saves)}`] : []),
  ];
  const { peak_memory_bytes: peak, planned_memory_bytes: planned } = result;
  return [
    [trained, ...losses, `${formatCount(tokens)} tokens`, ...rate].join(', ').replace(', ', ': '),
    `time: ${parts.join(', ')}`,
    `memory: ${formatBytes(peak)} at the peak of rank 0, ${formatBytes(planned)} of it planned`,
  ];
}

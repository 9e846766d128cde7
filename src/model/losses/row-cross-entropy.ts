import type { Loss } from '../blocks/loss.js';
import { VocabularySoftmax } from './cross-entropy.js';

/** Most rows of a batch over all replicas: each is a total of its own, and a step has so many (see StepTotals). */
export const MOST_ROWS = 60;

export interface RowPlace {
  /** Of a batch, on each replica; each holds one row, which is one sample. */
  readonly microBatches: number;
  readonly replica: number;
  readonly replicas: number;
}

/** The total that has the loss of row `row` of a batch: replica after replica, micro-batch after micro-batch. */
export function rowTotal(row: number): string {
  return `row.${row}`;
}

/**
 * Cross entropy with a total for every row of a batch beside the sum of all: what a choice's log-probability is read
 * from. For evaluations in batches of exactly `microBatches` micro-batches of one sample each.
 */
export function rowCrossEntropy({ microBatches, replica, replicas }: RowPlace): Loss {
  return {
    name: 'row_cross_entropy',
    fields: [
      { name: 'targets', dtype: 'i32' },
      { name: 'mask', dtype: 'f32' },
    ],
    totals: Array.from({ length: replicas * microBatches }, (_, row) => rowTotal(row)),
    plan: (env, { lossAndTokens, of }) => {
      const softmax = new VocabularySoftmax(env);
      const sums = env.plan.tensor('workspace', [2], 'f32');
      let applied = 0;
      return {
        // The last stage sees the micro-batches of a batch in their order.
        apply: (logits, fields) => {
          const { ops } = env;
          const targets = fields('targets');
          softmax.statistics(logits, targets);
          ops.fill(sums, 0);
          softmax.gradient(logits, targets, fields('mask'), sums);
          ops.device.copy(sums.slice(0, 1), of(rowTotal(replica * microBatches + (applied++ % microBatches))));
          ops.add(lossAndTokens, sums, lossAndTokens);
        },
      };
    },
  };
}

import type { Loss } from '../blocks/loss.js';
import { tokenLoss } from './token-loss.js';

export interface ValueLossOptions {
  /** How far from `old_value` a value may go before its error is no longer made smaller (PPO); no bound by default. */
  readonly clip?: number;
}

/**
 * Half the squared distance of each value to the field `returns`: for a model with the head `value`. With `clip` the
 * larger of that and of the distance of the value held within `clip` of the field `old_value`.
 */
export function valueLoss({ clip }: ValueLossOptions = {}): Loss {
  return tokenLoss({
    name: 'value',
    fields: clip === undefined ? ['returns'] : ['returns', 'old_value'],
    loss: ({ batch, value }, { loss, derivatives }) => {
      const { returns, old_value: old, mask } = batch;
      for (let t = 0; t < value.length; t++) {
        if (mask[t] === 0) continue;
        const error = value[t]! - returns![t]!;
        [loss[t], derivatives.value[t]] = [error ** 2 / 2, error];
        if (clip === undefined) continue;
        const held = Math.min(Math.max(value[t]!, old![t]! - clip), old![t]! + clip);
        const clipped = held - returns![t]!;
        // A value beyond the bound does not move the clipped error.
        if (clipped ** 2 > error ** 2) [loss[t], derivatives.value[t]] = [clipped ** 2 / 2, 0];
      }
    },
  });
}

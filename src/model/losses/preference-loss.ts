import { MbridgeError } from '../../base/errors.js';
import type { Loss } from '../blocks/loss.js';
import { tokenLoss, type TokenBatch } from './token-loss.js';

export interface DpoOptions {
  /** How strongly the policy is held to the reference: 0.1 by default. */
  readonly beta?: number;
}

/**
 * Direct preference optimisation: samples 2i and 2i + 1 of a micro-batch are what was chosen and what was rejected, the
 * mask counts the tokens of the answers, and the field `ref_logprob` has their log-probabilities under the reference.
 * The mean over pairs of -log sigmoid(beta * (log-ratio of the chosen - log-ratio of the rejected)). Totals: `right`
 * (pairs of which the chosen has the larger log-ratio) and `margin` (sum of what the sigmoid is of).
 */
export function dpoLoss({ beta = 0.1 }: DpoOptions = {}): Loss {
  return tokenLoss({
    name: 'dpo',
    fields: ['ref_logprob'],
    totals: ['right', 'margin'],
    loss: (tokens, { loss, derivatives, totals }) => {
      for (let pair = 0; pair < pairsOf(tokens); pair++) {
        const [chosen, rejected] = [2 * pair, 2 * pair + 1];
        const margin = beta * (logRatio(tokens, chosen) - logRatio(tokens, rejected));
        totals['margin']! += margin;
        if (margin > 0) totals['right']! += 1;
        // log(1 + e^-m) where neither e^m nor e^-m is too large.
        const value = Math.max(-margin, 0) + Math.log1p(Math.exp(-Math.abs(margin)));
        const slope = -beta / (1 + Math.exp(margin));
        spread(tokens, chosen, (t, part) => {
          loss[t] = value * part;
          derivatives.logprob[t] = slope;
        });
        spread(tokens, rejected, (t) => (derivatives.logprob[t] = -slope));
      }
    },
    divisor: pairsOf,
  });
}

function pairsOf({ samples }: TokenBatch): number {
  if (samples % 2 === 0) return samples / 2;
  throw new MbridgeError('config', 'MB_BATCH', `dpo: a micro-batch of ${samples} samples has no pairs`, {
    hint: 'make train.micro_batch_size even: the chosen sample, then the rejected one',
  });
}

/** Calls `each` for the counted tokens of a sample, with the part of the sample that one is. */
function spread({ batch, seq }: TokenBatch, sample: number, each: (t: number, part: number) => void): void {
  const tokens = Array.from({ length: seq }, (_, t) => sample * seq + t).filter((t) => batch.mask[t] !== 0);
  for (const t of tokens) each(t, 1 / tokens.length);
}

function logRatio(tokens: TokenBatch, sample: number): number {
  let sum = 0;
  spread(tokens, sample, (t) => (sum += tokens.logprob[t]! - tokens.batch['ref_logprob']![t]!));
  return sum;
}

import type { EvaluationSet } from '../data/evaluation-set.js';
import type { EvaluationNumbers } from '../job/shared/messages.js';
import type { Evaluation } from './evaluator.js';

/** An evaluation of `set` as it is printed. Reads the set's samples where they say how many bytes they are. */
export function evaluationNumbers(
  set: Pick<EvaluationSet, 'bytes'>,
  { loss, tokens }: Evaluation,
  seconds: number,
): EvaluationNumbers {
  const bytes = set.bytes() ?? 0;
  return {
    ...{ loss, perplexity: Math.exp(loss) },
    ...(bytes > 0 ? { bits_per_byte: (loss * tokens) / (Math.LN2 * bytes) } : {}),
    ...{ tokens, eval_s: Math.round(seconds * 1000) / 1000 },
  };
}

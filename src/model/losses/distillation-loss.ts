import { MbridgeError } from '../../base/errors.js';
import type { MicroBatch } from '../../data/micro-batch.js';
import { topKGather, topKKl } from '../../engine/distill-ops.js';
import type { Loss } from '../blocks/loss.js';
import type { StageEnv } from '../blocks/stage-env.js';
import { VocabularySoftmax } from './cross-entropy.js';
import { takeTokens, tokensHeld } from './token-columns.js';
import { checkTop } from './top-reader.js';

export interface DistillationOptions {
  /** Tokens that the teacher names after each token. */
  readonly k: number;
  /** What the logits of both are divided by; 1 by default. The teacher's log-probabilities are to be of the same. */
  readonly temperature?: number;
  /**
   * What probabilities sum to 1 over. `top_k`, the default: both models' over the k tokens, so that what the student holds
   * of others does not matter. `vocabulary`: over all tokens, and the terms of those that are not among the k are left
   * out, so that the student moves as much probability to the k as the teacher has there; such a sum may be negative.
   */
  readonly normalize?: 'top_k' | 'vocabulary';
}

/**
 * Distillation from the tokens that a teacher holds most probable: KL(teacher || student) of each counted token, times
 * temperature^2, so that the size of gradients does not depend on it (Hinton et al., arXiv 1503.02531). Fields:
 * `teacher_ids` (Int32Array) and `teacher_logprobs` (Float32Array), [b*s*k] each, as `DistributedModel.topLogprobs`
 * gives them; only the last stage needs them. Made on the device; no buffer is larger than the logits, cut over tp.
 */
export function distillationLoss({ k, temperature = 1, normalize = 'top_k' }: DistillationOptions): Loss {
  return {
    name: 'distillation',
    fields: [
      { name: 'targets', dtype: 'i32' },
      { name: 'mask', dtype: 'f32' },
    ],
    totals: [],
    plan: (env, { lossAndTokens }) => {
      checkTop('distillation', env, { k, temperature });
      const { plan, sizes, tp, shape } = env;
      const held = heldOf(env);
      const softmax = new VocabularySoftmax(env);
      const of = [sizes.tokens, k];
      const ids = plan.tensor('staging', of, 'i32');
      const [teacher, student] = [plan.tensor('staging', of, 'f32'), plan.tensor('workspace', of, 'f32')];
      const memory = plan.tensor('workspace', [sizes.tokens], 'f32');
      return {
        apply: (logits, fieldOf, batch) => {
          const { teacher_ids: tokens, teacher_logprobs: logprobs } = batch;
          checkField(batch, 'teacher_ids', Int32Array, k);
          checkField(batch, 'teacher_logprobs', Float32Array, k);
          checkIds(tokens as Int32Array, shape.vocabSize);
          const { device } = env.ops;
          device.write(ids, takeTokens(tokens as Int32Array, held, k));
          device.write(teacher, takeTokens(logprobs as Float32Array, held, k));
          softmax.statistics(logits, fieldOf('targets'));
          const sums = normalize === 'vocabulary' ? softmax.sumsAt(logits, temperature, memory) : null;
          topKGather(device, { logits, ids, values: student }, sizes.vocabStart);
          tp.allReduce(student, 'sum');
          const { max, rowLoss } = softmax;
          const own = { logits, ids, teacher, student, mask: fieldOf('mask'), max, sums, acc: lossAndTokens, rowLoss };
          topKKl(device, own, { vstart: sizes.vocabStart, temperature });
        },
      };
    },
  };
}

/** Which tokens of a micro-batch are here; null for all. */
export function heldOf(env: StageEnv): Int32Array | null {
  return env.cp.size === 1 ? null : tokensHeld(env);
}

/** @throws MbridgeError MB_BATCH unless the batch brings the field, `width` numbers a token */
export function checkField(
  batch: MicroBatch,
  name: string,
  type: typeof Int32Array | typeof Float32Array,
  width: number,
): void {
  const values = batch[name];
  const length = batch.tokens.length * width;
  if (values?.length === length && values instanceof type) return;
  const found = values === undefined ? 'is not there' : `is ${values.constructor.name} of ${values.length}`;
  throw new MbridgeError('config', 'MB_BATCH', `distillation: the field ${name} of a micro-batch ${found}`, {
    hint: `bring it as ${type.name} of ${length} entries, ${width} a token of the micro-batch`,
  });
}

function checkIds(ids: Int32Array, vocabSize: number): void {
  const wrong = ids.find((id) => id < 0 || id >= vocabSize);
  if (wrong === undefined) return;
  throw new MbridgeError('config', 'MB_BATCH', `distillation: teacher_ids has the token ${wrong}`, {
    hint: `the student's vocabulary is of ${vocabSize} tokens, and the teacher's has to be the same`,
  });
}

import { softSums } from '../../engine/distill-ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { Loss, LossFunction } from '../blocks/loss.js';
import type { StageEnv } from '../blocks/stage-env.js';

/**
 * Cross entropy of the next token, over a vocabulary that is cut over tp. `mask` says which tokens count: the loss is
 * their sum, `tokens` their number.
 */
export function crossEntropy(): Loss {
  return {
    name: 'cross_entropy',
    fields: [
      { name: 'targets', dtype: 'i32' },
      { name: 'mask', dtype: 'f32' },
    ],
    totals: [],
    inParts: true,
    plan: (env, { lossAndTokens }) => {
      const softmax = new VocabularySoftmax(env);
      return {
        apply: (logits, fields) => {
          const targets = fields('targets');
          softmax.statistics(logits, targets);
          softmax.gradient(logits, targets, fields('mask'), lossAndTokens);
        },
      };
    },
  };
}

/**
 * Cross entropy in which each token has a weight of its own, the float32 field `weight`: advantages of a policy, or how
 * much a sample is to be trusted. A weight may be negative or zero. The divisor stays the number of tokens that `mask`
 * counts, whatever their weights; a token that `mask` does not count has to have weight 0.
 */
export function weightedCrossEntropy(): Loss {
  return {
    name: 'weighted_cross_entropy',
    fields: [
      { name: 'targets', dtype: 'i32' },
      { name: 'mask', dtype: 'f32' },
      { name: 'weight', dtype: 'f32' },
    ],
    totals: [],
    inParts: true,
    plan: (env, { lossAndTokens }): LossFunction => {
      const softmax = new VocabularySoftmax(env);
      /** Of one micro-batch: sums of the weighted losses and of the weights, which is no number of tokens. */
      const sums = env.plan.tensor('workspace', [2], 'f32');
      const [loss, tokens] = [lossAndTokens.slice(0, 1), lossAndTokens.slice(1, 1)];
      return {
        apply: (logits, fields) => {
          const { ops } = env;
          const targets = fields('targets');
          softmax.statistics(logits, targets);
          ops.fill(sums, 0);
          softmax.gradient(logits, targets, fields('weight'), sums);
          ops.add(loss, sums.slice(0, 1), loss);
          // A mask is 0 or 1, so its sum of squares is the number of tokens.
          ops.sumOfSquares(fields('mask'), tokens, env.reduceWorkspace(1), true);
        },
      };
    },
  };
}

/**
 * The softmax over a vocabulary that is cut over tp: what losses of logits are made from. It works on as many rows as the
 * logits have that {@link statistics} is given.
 */
export class VocabularySoftmax {
  readonly #env: StageEnv;
  /** Rows: this shard's maximum, then over all shards the sum of exponentials and the target's logit. */
  readonly #statsRoom: Tensor;
  readonly #maxRoom: Tensor;
  readonly #rowLossRoom: Tensor;
  #rows: number;

  constructor(env: StageEnv) {
    const { tokens } = env.sizes;
    this.#env = env;
    this.#rows = tokens;
    this.#statsRoom = env.scratch('stats', [3, tokens], 'f32');
    this.#maxRoom = env.scratch('max', [tokens], 'f32');
    this.#rowLossRoom = env.scratch('rowLoss', [tokens], 'f32');
  }

  /** Takes maximum, sum of exponentials and target's logit of every row, over the whole vocabulary. */
  statistics(logits: Tensor, targets: Tensor): void {
    const { ops, tp, sizes } = this.#env;
    this.#rows = targets.size;
    const stats = this.#stats;
    ops.crossEntropyStats(logits, targets, stats, sizes.vocabStart);
    if (tp.size === 1) return;
    const max = this.max;
    ops.device.copy(stats.rows(0, 1).view(this.#rows), max);
    tp.allReduce(max, 'max');
    ops.crossEntropyRescale(stats, max);
    tp.allReduce(this.sums, 'sum');
  }

  /**
   * After {@link statistics}: logits = (softmax - one at the target) * coefficient, in place.
   * @param coefficient f32 [rows]
   * @param acc f32 [2] += sums of cross entropy * coefficient, and of the coefficients
   */
  gradient(logits: Tensor, targets: Tensor, coefficient: Tensor, acc: Tensor): void {
    const { ops, sizes } = this.#env;
    const { max, sums, rowLoss } = this;
    ops.crossEntropyGrad({ logits, targets, mask: coefficient, max, sums, acc, rowLoss }, sizes.vocabStart);
  }

  /**
   * After {@link statistics} of the same logits: sum of exp((logit - max) / temperature) of every row, f32 [rows].
   * @param memory f32, at least [rows], which has it at other temperatures than 1
   */
  sumsAt(logits: Tensor, temperature: number, memory: Tensor): Tensor {
    const { ops, tp } = this.#env;
    if (temperature === 1) return this.sums.rows(0, 1).view(this.#rows);
    const sums = memory.slice(0, this.#rows);
    softSums(ops.device, { logits, max: this.max, sums }, temperature);
    tp.allReduce(sums, 'sum');
    return sums;
  }

  /** After {@link gradient}: cross entropy * coefficient of every row, f32 [rows]. */
  get rowLoss(): Tensor {
    return this.#rowLossRoom.slice(0, this.#rows);
  }

  /** After {@link statistics}: the largest logit of every row, f32 [rows]. */
  get max(): Tensor {
    return this.#env.tp.size === 1 ? this.#stats.rows(0, 1).view(this.#rows) : this.#maxRoom.slice(0, this.#rows);
  }

  /** After {@link statistics}, f32 [2, rows]: sum of exp(logit - max), and the target's logit, of every row. */
  get sums(): Tensor {
    return this.#stats.rows(1, 2);
  }

  /** f32 [3, rows] */
  get #stats(): Tensor {
    return this.#statsRoom.slice(0, 3 * this.#rows, [3, this.#rows]);
  }
}

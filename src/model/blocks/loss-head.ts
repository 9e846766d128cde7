import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import { Linear } from './linear.js';
import { ResidualNorm, type Stream } from './residual-norm.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

/** Sees the logits [tokens, vocabulary shard] of a micro-batch before the loss overwrites them with their gradient. */
export type LogitsObserver = (logits: Tensor, microBatch: number) => void;

/**
 * Final norm, output projection (vocabulary sharded over tp) and cross entropy. The loss is the sum over counted
 * tokens, undivided, so its gradient is known at once: forward also does the projection's backward, and one logits
 * buffer serves all micro-batches in flight.
 */
export class LossHead {
  /** Sum of the counted tokens' losses, and their number, since `resetLoss`; f32 [2]. Equal on all tp ranks. */
  readonly lossAndTokens: Tensor;
  readonly #env: StageEnv;
  readonly #norm: ResidualNorm;
  readonly #output: Linear;
  readonly #targets: PerMicroBatch;
  readonly #mask: PerMicroBatch;
  readonly #dNormed: PerMicroBatch;
  readonly #temp: { wide: Tensor; logits: Tensor; stats: Tensor; max: Tensor; rowLoss: Tensor };

  constructor(
    env: StageEnv,
    weights: { norm: Weight; output: Weight },
    slots: number,
    data: { targets: PerMicroBatch; mask: PerMicroBatch },
  ) {
    const { tokens, localTokens, vocab } = env.sizes;
    const { hiddenSize } = env.shape;
    this.#env = env;
    this.#output = new Linear(env, { weight: weights.output });
    this.#targets = data.targets;
    this.#mask = data.mask;
    this.#norm = new ResidualNorm(env, 'head.norm', weights.norm, slots, slots);
    this.#dNormed = env.saved('head.dNormed', [localTokens, hiddenSize], slots, 'never');
    this.lossAndTokens = env.plan.tensor('workspace', [2], 'f32');
    this.#temp = {
      wide: env.scratch('wide', [tokens, hiddenSize]),
      logits: env.scratch('logits', [tokens, env.sizes.vocabRoom]).slice(0, tokens * vocab, [tokens, vocab]),
      stats: env.scratch('stats', [3, tokens], 'f32'),
      max: env.scratch('max', [tokens], 'f32'),
      rowLoss: env.scratch('rowLoss', [tokens], 'f32'),
    };
  }

  resetLoss(): void {
    this.#env.ops.fill(this.lossAndTokens, 0);
  }

  /** @param withGradient false in evaluation: only the loss is wanted */
  forward(microBatch: number, input: Stream, withGradient: boolean, observe?: LogitsObserver): void {
    const [env, temp, output] = [this.#env, this.#temp, this.#output];
    const { tp } = env;
    const normed = this.#norm.forward(microBatch, input);
    output.forward(normed, temp.logits);
    observe?.(temp.logits, microBatch);
    this.#loss(microBatch);
    if (!withGradient) return;
    const dNormed = this.#dNormed(microBatch);
    const wide = tp.size === 1 ? dNormed : temp.wide;
    output.dgrad(temp.logits, wide);
    const reduced = tp.startReduce(wide, dNormed);
    output.wgrad(temp.logits, () => normed);
    const result = reduced.wait();
    if (result !== dNormed) env.ops.device.copy(result, dNormed);
  }

  /** @param dStream receives the gradient of the residual stream before the final norm */
  backward(microBatch: number, dStream: Tensor): void {
    this.#norm.backward(microBatch, this.#dNormed(microBatch), dStream, true);
  }

  /** Vocabulary-parallel cross entropy; logits become their gradient. */
  #loss(microBatch: number): void {
    const [env, temp] = [this.#env, this.#temp];
    const { ops, tp, sizes } = env;
    const { logits, stats } = temp;
    const targets = this.#targets(microBatch);
    ops.crossEntropyStats(logits, targets, stats, sizes.vocabStart);
    let max = stats.rows(0, 1).view(sizes.tokens);
    const sums = stats.rows(1, 2);
    if (tp.size > 1) {
      ops.device.copy(max, temp.max);
      max = temp.max;
      tp.allReduce(max, 'max');
      ops.crossEntropyRescale(stats, max);
      tp.allReduce(sums, 'sum');
    }
    const mask = this.#mask(microBatch);
    const acc = this.lossAndTokens;
    ops.crossEntropyGrad({ logits, targets, mask, max, sums, acc, rowLoss: temp.rowLoss }, sizes.vocabStart);
  }
}

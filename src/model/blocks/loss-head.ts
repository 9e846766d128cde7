import type { MicroBatch } from '../../data/micro-batch.js';
import type { Tensor } from '../../engine/tensor.js';
import type { Weight } from '../parameters/parameter.js';
import { Linear } from './linear.js';
import type { LossFunction } from './loss.js';
import { ResidualNorm, type ResidualStream } from './residual-norm.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

/**
 * Sees the logits [tokens, vocabulary shard, or 1] of a micro-batch's tokens from `first` on, in turn until all of this rank's
 * were seen, each before the loss overwrites them with their gradient.
 */
export type LogitsObserver = (logits: Tensor, microBatch: number, first: number) => void;

export interface HeadOptions {
  /** False in evaluation: only the loss is wanted. */
  readonly withGradient: boolean;
  readonly observe?: LogitsObserver | undefined;
  /** Has the logits in place of the loss. */
  readonly score?: LogitsObserver | undefined;
  /** Has what the output projection multiplies, [this rank's tokens, hidden], in place of logits and loss. */
  readonly hidden?: LogitsObserver | undefined;
}

/** What a micro-batch brings, on the device by its field, and on the host. */
export interface HeadInputs {
  readonly field: (name: string) => PerMicroBatch;
  readonly batch: (microBatch: number) => MicroBatch;
}

/**
 * Final norm, output projection (vocabulary sharded over tp; of a value model one row, on every tp rank) and loss. The loss
 * is the sum over counted tokens, undivided, so its gradient is known at once: forward also does the projection's backward,
 * and one logits buffer serves all micro-batches in flight. A loss that allows it takes the tokens a part at a time, so that
 * there are never more logits than those of one part.
 */
export class LossHead {
  readonly #env: StageEnv;
  readonly #norm: ResidualNorm;
  readonly #output: Linear;
  readonly #loss: LossFunction;
  readonly #inputs: HeadInputs;
  readonly #dNormed: PerMicroBatch;
  readonly #temp: { wide: Tensor; logits: Tensor };
  /** Tokens of a part. */
  readonly #part: number;

  constructor(
    env: StageEnv,
    weights: { norm: Weight; output: Weight },
    slots: number,
    loss: LossFunction,
    inputs: HeadInputs,
    logitsTokens: number,
  ) {
    const { tokens, localTokens } = env.sizes;
    const { vocab, vocabRoom } = env.head === 'value' ? { vocab: 1, vocabRoom: 1 } : env.sizes;
    const { hiddenSize } = env.shape;
    this.#env = env;
    this.#output = new Linear(env, { weight: weights.output, bias: null, adapter: null });
    this.#loss = loss;
    this.#inputs = inputs;
    this.#norm = new ResidualNorm(env, 'head.norm', weights.norm, slots, slots);
    this.#dNormed = env.saved('head.dNormed', [localTokens, hiddenSize], slots, 'never');
    this.#part = logitsTokens;
    this.#temp = {
      wide: env.scratch('wide', [tokens, hiddenSize]),
      logits: env.scratch('logits', [logitsTokens, vocabRoom]).slice(0, logitsTokens * vocab, [logitsTokens, vocab]),
    };
  }

  forward(microBatch: number, input: ResidualStream, { withGradient, observe, score, hidden }: HeadOptions): void {
    const [env, temp, output] = [this.#env, this.#temp, this.#output];
    const { tp, sizes } = env;
    const normed = this.#norm.forward(microBatch, input);
    if (hidden !== undefined) return hidden(normed, microBatch, 0);
    const { field, batch } = this.#inputs;
    const dNormed = this.#dNormed(microBatch);
    const wide = tp.size === 1 ? dNormed : temp.wide;
    let wgrad = (): void => undefined;
    for (let first = 0; first < sizes.tokens; first += this.#part) {
      const count = Math.min(this.#part, sizes.tokens - first);
      const [rows, logits] = [normed.rows(first, count), temp.logits.rows(0, count)];
      wgrad(); // of the part before, whose logits go now
      output.forward(rows, logits);
      observe?.(logits, microBatch, first);
      if (score !== undefined) {
        score(logits, microBatch, first);
        continue;
      }
      this.#loss.apply(logits, (name) => field(name)(microBatch).slice(first, count), batch(microBatch));
      if (!withGradient) continue;
      output.dgrad(logits, wide.rows(first, count));
      wgrad = () => {
        output.wgrad(logits, () => rows);
      };
    }
    if (score !== undefined || !withGradient) return;
    const reduced = tp.startReduce(wide, dNormed);
    // While the sum over the ranks is on its way.
    wgrad();
    const result = reduced.wait();
    if (result !== dNormed) env.ops.device.copy(result, dNormed);
  }

  /** @param dStream receives the gradient of the residual stream before the final norm */
  backward(microBatch: number, dStream: Tensor): void {
    this.#norm.backward(microBatch, this.#dNormed(microBatch), dStream, true);
  }
}

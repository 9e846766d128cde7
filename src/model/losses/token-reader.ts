import type { Tensor } from '../../engine/tensor.js';
import type { StageEnv } from '../blocks/stage-env.js';
import { VocabularySoftmax } from './cross-entropy.js';
import { tokensHeld } from './token-columns.js';

/**
 * What a model gives for the tokens of a micro-batch, in their order there, whatever the layout. A language model has
 * log-probabilities and entropies in nats; a value model has values. What it has not is 0.
 */
export interface TokenScores {
  /** Of each target, f32 [b*s]; of no meaning where the target is no token of the vocabulary. */
  readonly logprob: Float32Array;
  /** Of the distribution that the target is drawn from, f32 [b*s]. */
  readonly entropy: Float32Array;
  /** f32 [b*s] */
  readonly value: Float32Array;
}

/** Derivatives of a micro-batch's loss by what {@link TokenScores} holds, f32 [b*s] each. */
export interface TokenDerivatives {
  readonly logprob: Float32Array;
  readonly entropy: Float32Array;
  readonly value: Float32Array;
}

/**
 * Between the logits of a micro-batch and the host: reads what they say of each token, and makes the gradient of the
 * logits from derivatives. No buffer is larger than the logits, which stay cut over tp. Ranks that share sequences give
 * each other their tokens, so that all read the same: a loss may look at whole sequences.
 */
export class TokenReader {
  /** Of a micro-batch on this rank, for each token its number in the whole. */
  readonly held: Int32Array;
  readonly #env: StageEnv;
  readonly #softmax: VocabularySoftmax | null;
  readonly #moment: Tensor;
  /** f32 [cp, 2, tokens]: log-probabilities (or values) and entropies of each rank that shares the sequences. */
  readonly #scores: Tensor;
  /** f32 [2, tokens]: derivatives. */
  readonly #derivatives: Tensor;

  constructor(env: StageEnv) {
    const { tokens } = env.sizes;
    const { cp } = env;
    this.#env = env;
    this.held = tokensHeld(env);
    this.#softmax = env.head === 'value' ? null : new VocabularySoftmax(env);
    this.#moment = env.scratch('tokenMoment', [tokens], 'f32');
    this.#scores = env.scratch('tokenScores', [cp.size, 2 * tokens], 'f32');
    this.#derivatives = env.scratch('tokenDerivatives', [2, tokens], 'f32');
  }

  /** {@link take} of all tokens, and {@link found}. */
  read(logits: Tensor, targets: Tensor): TokenScores {
    this.take(logits, targets, 0);
    return this.found();
  }

  /** What was taken of a micro-batch. Waits for the device. Every rank of tp and cp calls it, and gets the same. */
  found(): TokenScores {
    const { cp, sizes, ops } = this.#env;
    const all = cp.size === 1 ? this.#scores : cp.startGather(this.#own, this.#scores).wait();
    const found = new Float32Array(all.size);
    ops.device.read(all, found);
    const column = (which: 0 | 1): Float32Array => this.#whole(found, which * sizes.tokens);
    const none = new Float32Array(sizes.batch * sizes.seq);
    return this.#softmax === null
      ? { logprob: none, entropy: none, value: column(0) }
      : { logprob: column(0), entropy: column(1), value: none };
  }

  /** A column of all ranks that share the sequences, in the order of the micro-batch. @param at where the first rank's is */
  #whole(found: Float32Array, at: number): Float32Array {
    const { cp, sizes } = this.#env;
    if (cp.size === 1) return found.slice(at, at + sizes.tokens);
    const all = new Float32Array(sizes.batch * sizes.seq);
    for (let rank = 0; rank < cp.size; rank++) {
      const first = at + 2 * rank * sizes.tokens;
      tokensHeld(this.#env, rank).forEach((token, i) => (all[token] = found[first + i] as number));
    }
    return all;
  }

  /** After {@link read} of the same logits: turns them into their gradient. */
  differentiate(logits: Tensor, targets: Tensor, derivatives: TokenDerivatives): void {
    const { ops, tp, cp, sizes } = this.#env;
    const [first, second] = [this.#row(this.#derivatives, 0), this.#row(this.#derivatives, 1)];
    const own = (values: Float32Array): Float32Array =>
      cp.size === 1 ? values : Float32Array.from(this.held, (token) => values[token] as number);
    if (this.#softmax === null) {
      // Every tp rank has the whole row of weights, and what they give back is added up.
      if (tp.rank > 0) return ops.fill(logits, 0);
      ops.device.write(first, own(derivatives.value));
      return ops.cast(first, logits.view(sizes.tokens));
    }
    ops.device.write(first, own(derivatives.logprob));
    ops.device.write(second, own(derivatives.entropy));
    const { max, sums } = this.#softmax;
    const entropy = this.#row(this.#own, 1);
    ops.tokenGrad({ logits, targets, dLogprob: first, dEntropy: second, entropy, max, sums }, sizes.vocabStart);
  }

  /** Reads the logits of this rank's tokens from `at` on, and leaves them as they are. */
  take(logits: Tensor, targets: Tensor, at: number): void {
    const { ops, tp } = this.#env;
    const { size } = targets;
    const [first, entropy] = [this.#row(this.#own, 0).slice(at, size), this.#row(this.#own, 1).slice(at, size)];
    if (this.#softmax === null) {
      ops.cast(logits.view(size), first);
      return ops.fill(entropy, 0);
    }
    this.#softmax.statistics(logits, targets);
    const { max, sums } = this.#softmax;
    const moment = this.#moment.slice(0, size);
    ops.tokenMoment(logits, max, moment);
    tp.allReduce(moment, 'sum');
    ops.tokenValues({ max, sums, moment, logprob: first, entropy });
  }

  /** f32 [2, tokens]: this rank's part of the scores. */
  get #own(): Tensor {
    const { cp, sizes } = this.#env;
    return this.#scores.rows(cp.rank, 1).view(2, sizes.tokens);
  }

  #row(rows: Tensor, row: number): Tensor {
    return rows.rows(row, 1).view(this.#env.sizes.tokens);
  }
}

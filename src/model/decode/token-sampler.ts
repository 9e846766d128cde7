import type { CommGroup } from '../../groups/comm/comm-group.js';
import { DECODE, sample, sampleFloor, samplePick } from '../../engine/decode-ops.js';
import { Tensor } from '../../engine/tensor.js';
import type { StageEnv } from '../blocks/stage-env.js';
import { VocabularySoftmax } from '../losses/cross-entropy.js';

/** How a token is chosen from the logits. */
export interface Sampling {
  /** What logits are divided by; 0 takes the most probable token. */
  readonly temperature: number;
  /** Only the k most probable tokens; 0 all. */
  readonly topK: number;
  /** Only the most probable tokens that have this much of the probability together; 1 all. */
  readonly topP: number;
  /** Integer in [0, 2^53). */
  readonly seed: number;
}

/**
 * Chooses a token for each row of logits that are cut over tp: argmax(logit / T + Gumbel noise of (seed, row, position,
 * token)). What the shards found is gathered, 64 bytes a row and rank; top-k and top-p look at the whole vocabulary,
 * so they alone gather the logits. The log-probability comes from the ops of the loss.
 */
export class TokenSampler {
  /** Of each row, i32 and f32 [2, rows] side by side: the token, and its negative log-probability. */
  readonly result: Tensor;
  /** i32 [rows]: the tokens of {@link result}. */
  readonly tokens: Tensor;
  readonly #env: StageEnv;
  readonly #group: CommGroup | null;
  readonly #softmax: VocabularySoftmax;
  readonly #t: { scores: Tensor; allScores: Tensor; floor: Tensor; ones: Tensor; acc: Tensor; gathered: Tensor | null };

  /** @param group the tp ranks; null while only planning */
  constructor(env: StageEnv, group: CommGroup | null) {
    const { tokens: rows, vocabRoom } = env.sizes;
    const { plan, tp } = env;
    this.#env = env;
    this.#group = group;
    this.#softmax = new VocabularySoftmax(env);
    this.result = plan.tensor('staging', [2, rows], 'i32');
    this.tokens = this.result.rows(0, 1).view(rows);
    const scores = plan.tensor('workspace', [DECODE.sampleParts, rows, 2], 'f32');
    const many = tp.size > 1;
    this.#t = {
      scores,
      allScores: many ? plan.tensor('communication', [tp.size, ...scores.shape], 'f32') : scores,
      floor: plan.tensor('workspace', [rows], 'f32'),
      ones: plan.tensor('workspace', [rows], 'f32'),
      acc: plan.tensor('workspace', [2], 'f32'),
      gathered: many ? plan.tensor('communication', [tp.size, rows * vocabRoom], env.dtype) : null,
    };
  }

  /** To be called once the memory is there. */
  prepare(): void {
    this.#env.ops.fill(this.#t.ones, 1);
    this.#env.ops.fill(this.#t.acc, 0);
    this.#env.ops.fill(this.tokens, 0);
  }

  /**
   * @param logits act [rows, vocabulary shard], overwritten
   * @param room the memory that they lie at the beginning of, rows * vocabRoom elements
   * @param rows i32 [rows]: number of the row, for the noise
   */
  sample(logits: Tensor, room: Tensor, rows: Tensor, positions: Tensor, sampling: Sampling): void {
    const [env, t] = [this.#env, this.#t];
    const { ops, tp, sizes, shape } = env;
    const { temperature, topK, topP, seed } = sampling;
    const filters = temperature > 0 && (topK > 0 || topP < 1);
    if (filters) {
      if (t.gathered !== null) this.#group?.allGather(room, t.gathered);
      const of = { shards: tp.size, vocab: shape.vocabSize, room: sizes.vocabRoom };
      sampleFloor(ops.device, t.gathered ?? room, t.floor, of, sampling);
    }
    const noise = { vstart: sizes.vocabStart, temperature, seed };
    sample(ops.device, { logits, rows, positions, floor: filters ? t.floor : null, scores: t.scores }, noise);
    if (t.allScores !== t.scores) this.#group?.allGather(t.scores, t.allScores);
    samplePick(ops.device, t.allScores, this.tokens);
    this.#softmax.statistics(logits, this.tokens);
    this.#softmax.gradient(logits, this.tokens, t.ones, t.acc);
    const { region, localOffset, shape: row } = this.result.rows(1, 1).view(sizes.tokens);
    ops.device.copy(this.#softmax.rowLoss, new Tensor(region, localOffset, row, 'f32'));
  }
}

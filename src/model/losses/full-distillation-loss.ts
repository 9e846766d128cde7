import { MbridgeError } from '../../base/errors.js';
import { softKl, softSums } from '../../engine/distill-ops.js';
import type { DType } from '../../engine/dtype.js';
import type { Tensor } from '../../engine/tensor.js';
import { EMBEDDING, HEAD } from '../../families/decoder.js';
import type { ModelShape } from '../../families/model-shape.js';
import type { FieldSpec, MicroBatch } from '../../data/micro-batch.js';
import type { FieldOf, Loss, LossFunction } from '../blocks/loss.js';
import type { StageEnv } from '../blocks/stage-env.js';
import type { HeldPiece } from '../parameters/rectangle.js';
import { VocabularySoftmax } from './cross-entropy.js';
import { checkField, heldOf } from './distillation-loss.js';
import { takeTokens } from './token-columns.js';

export interface FullDistillationOptions {
  readonly teacher: Pick<ModelShape, 'hiddenSize' | 'vocabSize' | 'tieWordEmbeddings'>;
  /** What the logits of both are divided by; 1 by default. */
  readonly temperature?: number;
}

/**
 * Distillation from all of a teacher's logits: KL(teacher || student) over the vocabulary of each counted token, times
 * temperature^2. Logits do not travel: a batch brings the teacher's hidden states, the field `teacher_hidden`
 * (Float32Array [b*s*hidden], as `DistributedModel.hiddenStates` gives them; only the last stage needs it), and the student's last
 * stage has the teacher's output layer, cut as its own. So the layouts of the two have nothing to do with each other,
 * and memory is one more buffer of logits, [tokens, vocabulary / tp], whatever the number of micro-batches.
 *
 * Of one model alone, and before its first batch a WeightTransfer with it as the target brings the output layer.
 */
export class FullDistillationLoss implements Loss {
  readonly name = 'full_distillation';
  readonly fields: readonly FieldSpec[] = [
    { name: 'targets', dtype: 'i32' },
    { name: 'mask', dtype: 'f32' },
  ];
  readonly totals: readonly string[] = [];
  readonly #teacher: FullDistillationOptions['teacher'];
  readonly #temperature: number;
  #env: StageEnv | null = null;
  #head: Tensor | null = null;
  #filled = false;

  constructor({ teacher, temperature = 1 }: FullDistillationOptions) {
    this.#teacher = teacher;
    this.#temperature = temperature;
  }

  /** This rank's rows of the teacher's output layer; none on ranks without the loss. */
  get held(): readonly HeldPiece[] {
    const { tieWordEmbeddings, hiddenSize } = this.#teacher;
    if (this.#head === null || this.#env === null) return [];
    const { vocabStart, vocab } = this.#env.sizes;
    const piece = {
      name: tieWordEmbeddings ? EMBEDDING : HEAD,
      rows: { start: vocabStart, count: vocab },
      cols: { start: 0, count: hiddenSize },
    };
    return [{ piece, tensor: this.#head }];
  }

  /** Of {@link held}; null where there is none. */
  get dtype(): DType | null {
    return this.#head?.dtype ?? null;
  }

  /** To be called when {@link held} has its values. */
  filled(): void {
    this.#filled = true;
  }

  plan(env: StageEnv, { lossAndTokens }: { readonly lossAndTokens: Tensor }): LossFunction {
    this.#check(env);
    const { hiddenSize } = this.#teacher;
    const { plan, sizes, dtype } = env;
    const { tokens, vocab, vocabRoom } = sizes;
    this.#env = env;
    this.#head = plan.tensor('parameters', [vocabRoom, hiddenSize], dtype).rows(0, vocab);
    const softmax = new VocabularySoftmax(env);
    const brought = plan.tensor('staging', [tokens, hiddenSize], 'f32');
    const t = {
      ...{ softmax, brought, lossAndTokens, head: this.#head, held: heldOf(env) },
      hidden: dtype === 'f32' ? brought : plan.tensor('workspace', brought.shape, dtype),
      logits: plan.tensor('workspace', [tokens, vocabRoom], dtype).slice(0, tokens * vocab, [tokens, vocab]),
      max: plan.tensor('workspace', [tokens], 'f32'),
      sums: plan.tensor('workspace', [3, tokens], 'f32'),
    };
    return { apply: (logits, fields, batch) => this.#apply(env, t, logits, fields, batch) };
  }

  #apply(
    env: StageEnv,
    t: {
      softmax: VocabularySoftmax;
      head: Tensor;
      brought: Tensor;
      hidden: Tensor;
      logits: Tensor;
      max: Tensor;
      sums: Tensor;
      lossAndTokens: Tensor;
      held: Int32Array | null;
    },
    logits: Tensor,
    fieldOf: FieldOf,
    batch: MicroBatch,
  ): void {
    if (!this.#filled) throw refused("the teacher's output layer is not here", 'bring it with a WeightTransfer before');
    checkField(batch, 'teacher_hidden', Float32Array, this.#teacher.hiddenSize);
    const { ops, tp } = env;
    const { device } = ops;
    const { softmax } = t;
    device.write(t.brought, takeTokens(batch['teacher_hidden'] as Float32Array, t.held, this.#teacher.hiddenSize));
    if (t.hidden !== t.brought) ops.cast(t.brought, t.hidden);
    ops.linear(t.hidden, t.head, t.logits);
    const targets = fieldOf('targets');
    softmax.statistics(t.logits, targets);
    device.copy(softmax.max, t.max);
    softmax.statistics(logits, targets);
    const { max, rowLoss } = softmax;
    softSums(device, { logits, max, sums: t.sums, teacher: { logits: t.logits, max: t.max } }, this.#temperature);
    tp.allReduce(t.sums, 'sum');
    const own = { logits, teacher: t.logits, mask: fieldOf('mask'), max, teacherMax: t.max, sums: t.sums };
    softKl(device, { ...own, acc: t.lossAndTokens, rowLoss }, this.#temperature);
  }

  #check({ head, shape }: StageEnv): void {
    if (this.#env !== null) throw new Error('a FullDistillationLoss is of one model');
    const { vocabSize } = this.#teacher;
    if (head === 'value') throw refused('a value model has no logits', 'distil into a language model');
    if (!(this.#temperature > 0)) throw refused(`temperature is ${this.#temperature}`, 'give one above 0');
    if (vocabSize === shape.vocabSize) return;
    throw refused(
      `a teacher of ${vocabSize} tokens and a student of ${shape.vocabSize}`,
      'both models need one vocabulary',
    );
  }
}

function refused(found: string, hint: string): MbridgeError {
  return new MbridgeError('config', 'MB_DISTILLATION', `distillation: ${found}`, { hint });
}

import { MbridgeError } from '../../base/errors.js';
import { MOST_TOP_K, topK, topKMerge } from '../../engine/distill-ops.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import type { StageEnv } from '../blocks/stage-env.js';
import { VocabularySoftmax } from './cross-entropy.js';
import { TokenColumns } from './token-columns.js';

/** What a model says of the tokens that may follow: of each token of a micro-batch the k most probable, 8 * k bytes. */
export interface TopLogprobs {
  /** i32 [b*s*k]: the largest first, of equal ones the lowest. */
  readonly ids: Int32Array;
  /** f32 [b*s*k], in nats, of the whole vocabulary. */
  readonly logprobs: Float32Array;
}

export interface TopOptions {
  /** How many of each token. */
  readonly k: number;
  /** What logits are divided by; 1 by default. */
  readonly temperature?: number;
}

/** @throws MbridgeError MB_DISTILLATION, exit 3, for options that a model cannot follow */
export function checkTop(who: string, { head, shape }: StageEnv, { k, temperature = 1 }: TopOptions): void {
  const most = Math.min(MOST_TOP_K, shape.vocabSize);
  const problem =
    head === 'value'
      ? 'a value model has no logits'
      : !Number.isInteger(k) || k < 1 || k > most
        ? `k is ${k}`
        : !(temperature > 0 && Number.isFinite(temperature))
          ? `temperature is ${temperature}`
          : null;
  if (problem === null) return;
  throw new MbridgeError('config', 'MB_DISTILLATION', `${who}: ${problem}`, {
    hint: `of a language model, with a k from 1 to ${most} and a temperature above 0`,
  });
}

/**
 * The k largest of each row of logits that are cut over tp: each shard's k, 8 * k bytes a token, are what ranks give each
 * other. It has memory of its own, from construction on, until it is disposed of.
 */
export class TopReader {
  readonly #env: StageEnv;
  readonly #k: number;
  readonly #temperature: number;
  readonly #softmax: VocabularySoftmax;
  readonly #plan = new MemoryPlan();
  readonly #t: { values: Tensor; ids: Tensor; allValues: Tensor; allIds: Tensor; sums: Tensor };
  readonly #logprobs: TokenColumns;
  readonly #ids: TokenColumns;

  constructor(env: StageEnv, { k, temperature = 1 }: TopOptions) {
    const { tokens } = env.sizes;
    const { size } = env.tp;
    const plan = this.#plan;
    this.#env = env;
    this.#k = k;
    this.#temperature = temperature;
    this.#softmax = new VocabularySoftmax(env);
    const [values, ids] = [plan.tensor('workspace', [tokens, k], 'f32'), plan.tensor('workspace', [tokens, k], 'i32')];
    this.#t = {
      ...{ values, ids },
      allValues: size === 1 ? values : plan.tensor('communication', [size, tokens, k], 'f32'),
      allIds: size === 1 ? ids : plan.tensor('communication', [size, tokens, k], 'i32'),
      sums: plan.tensor('workspace', [tokens], 'f32'),
    };
    this.#logprobs = new TokenColumns(env, plan, k, 'f32');
    this.#ids = new TokenColumns(env, plan, k, 'i32');
    plan.commit(env.ops.device);
  }

  /** Reads the logits of this rank's tokens from `at` on, and leaves them as they are. */
  take(logits: Tensor, targets: Tensor, at: number): void {
    const { ops, tp, sizes } = this.#env;
    const { device } = ops;
    const { size } = targets;
    const [values, ids] = [this.#t.values.rows(0, size), this.#t.ids.rows(0, size)];
    const gathered = (room: Tensor): Tensor => room.slice(0, tp.size * values.size, [tp.size, ...values.shape]);
    this.#softmax.statistics(logits, targets);
    const sums = this.#softmax.sumsAt(logits, this.#temperature, this.#t.sums);
    topK(device, { logits, values, ids }, sizes.vocabStart);
    const [allValues, lists] = tp.size === 1 ? [values, ids] : [gathered(this.#t.allValues), gathered(this.#t.allIds)];
    if (tp.size > 1) {
      tp.allGather(values, allValues);
      tp.allGather(ids, lists);
    }
    const to = { logprobs: this.#logprobs.own.rows(at, size), ids: this.#ids.own.rows(at, size) };
    topKMerge(device, { values: allValues, lists, max: this.#softmax.max, sums, ...to }, this.#temperature);
  }

  /** What was taken of a micro-batch. Waits for the device. Every rank of tp and cp calls it, and gets the same. */
  found(): TopLogprobs {
    const { sizes } = this.#env;
    const length = sizes.batch * sizes.seq * this.#k;
    const found = { ids: new Int32Array(length), logprobs: new Float32Array(length) };
    this.#ids.read(found.ids);
    this.#logprobs.read(found.logprobs);
    return found;
  }

  dispose(): void {
    this.#plan.release();
  }
}

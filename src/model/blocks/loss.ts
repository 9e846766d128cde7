import type { FieldSpec, MicroBatch } from '../../data/micro-batch.js';
import type { Tensor } from '../../engine/tensor.js';
import type { StageEnv } from './stage-env.js';

/** Gives a field of the current micro-batch, [tokens]. */
export type FieldOf = (name: string) => Tensor;

/** A loss that has its memory: what becomes of a micro-batch's logits. */
export interface LossFunction {
  /**
   * Adds the micro-batch to the step's totals, and turns the logits into their gradient: of the sum over tokens,
   * undivided, since the optimizer divides by the step's counted tokens. Enqueues on the compute stream.
   * @param logits act [tokens, vocabulary shard], overwritten, of all tokens of this rank unless the loss works `inParts`; of a
   * value model [tokens, 1], the same on all tp ranks
   * @param batch the whole micro-batch on the host, with whatever a program put in it
   */
  apply(logits: Tensor, fields: FieldOf, batch: MicroBatch): void;
}

/**
 * What a model is trained to make small. It says which fields a batch must bring and which totals it adds to, and asks
 * for its memory while the model is planned. Every rank of the model has the same loss; the last stage runs it.
 */
export interface Loss {
  readonly name: string;
  /** Of a batch, beside what the model itself reads. Those that every batch has may be named too. */
  readonly fields: readonly FieldSpec[];
  /** Totals that it adds to beside `loss` and `tokens`, which every step has; equal on all tp ranks. */
  readonly totals: readonly string[];
  /**
   * Whether a micro-batch may come to `apply` a part at a time: logits and fields of some of its tokens, each token once. Then
   * there need not be memory for the logits of all (`model.loss_chunk_tokens`).
   */
  readonly inParts?: boolean;
  /**
   * @param env sizes, tensor parallelism, and the memory asked for from it; its ops are there once `apply` is called
   * @param totals `loss` and `tokens` (f32 [2], side by side, as `lossAndTokens`), and an f32 [1] for each name of `totals`
   */
  plan(env: StageEnv, totals: { readonly lossAndTokens: Tensor; readonly of: (name: string) => Tensor }): LossFunction;
}

/** One value a token that a batch brings to the model. */
export interface FieldSpec {
  readonly name: string;
  readonly dtype: 'i32' | 'f32';
}

/** The fields that a {@link MicroBatch} always has, in the order in which they are sent to the device. */
export const BATCH_FIELDS = [
  { name: 'tokens', dtype: 'i32' },
  /** Entry j is the token that follows tokens[j]. */
  { name: 'targets', dtype: 'i32' },
  /** 1 where the loss of predicting targets[j] counts, else 0. */
  { name: 'mask', dtype: 'f32' },
  /** Stable sort of 0..b*s-1 by token id (EMBED_BWD needs it). */
  { name: 'order', dtype: 'i32' },
  /** 0, 1, ... in each sample; anew where a document begins that attention stays inside of. */
  { name: 'positions', dtype: 'i32' },
] as const satisfies readonly FieldSpec[];

type ArrayOf<Dtype extends FieldSpec['dtype']> = Dtype extends 'f32' ? Float32Array : Int32Array;

/**
 * One micro-batch of b samples of s tokens; every array has b*s entries, sample after sample. `BATCH_FIELDS` says
 * what each is; further ones are what the loss asks for. Ranks that share sequences bring the same, and take their tokens.
 */
export type MicroBatch = {
  readonly [Field in (typeof BATCH_FIELDS)[number] as Field['name']]: ArrayOf<Field['dtype']>;
} & { readonly [field: string]: Int32Array | Float32Array };

/** Where a training loop or an evaluation takes its micro-batches from. */
export interface BatchSource {
  /** This replica's micro-batches of update `step` (from 1), valid until the next call. */
  next(step: number): readonly MicroBatch[];
  /** Pass over the data (from 0) that the last sample of update `step` belongs to; 0 where there are no passes. */
  epoch?(step: number): number;
}

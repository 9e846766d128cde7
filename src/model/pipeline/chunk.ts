import type { Tensor } from '../../engine/tensor.js';
import type { HeadOptions } from '../blocks/loss-head.js';
import type { BucketHooks } from '../parameters/bucket-hooks.js';

/** `withGradient` is false for evaluation: nothing is kept for a backward. */
export interface ForwardOptions extends HeadOptions {
  readonly hooks?: BucketHooks | undefined;
}

/** What the executor drives: one stage of the model on this rank, with its buffers towards its neighbours. */
export interface Chunk {
  /** Whether the chunk ends in the loss, so that it sends nothing on. */
  readonly head: object | null;
  /** Where the previous stage's output is received. */
  input(microBatch: number): Tensor;
  /** What the next stage is sent. */
  output(microBatch: number): Tensor;
  /** Where the gradient of the output is received, and from where that of the input is sent. */
  gradient(microBatch: number): Tensor;
  forward(microBatch: number, options: ForwardOptions): void;
  /** @param last whether this is the step's last backward of this chunk */
  backward(microBatch: number, last: boolean, hooks?: BucketHooks): void;
}

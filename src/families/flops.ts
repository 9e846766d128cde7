import { adapterCount, type Adapters } from './adapters.js';
import type { ModelShape } from './model-shape.js';
import { linearShapes } from './parameters.js';

/** Floating-point operations of a training step by part, a token: forward and backward, causal attention counted half. */
export interface TokenFlops {
  readonly layer: number;
  readonly head: number;
}

/**
 * Megatron-LM's formula (num_floating_point_operations in its training.py): 6 for each weight of a linear layer, and
 * 6 * heads * headDim * seq for the attention core. Norms, biases, RoPE, softmax, embedding lookup, optimizer and
 * recomputation are not counted. Beside adapters a weight of the model has no gradient: 4 for it, and 6 for each of theirs.
 */
export function tokenFlops(shape: ModelShape, seq: number, adapters: Adapters | null = null): TokenFlops {
  const products = linearShapes(shape, 1);
  const each = adapters === null ? 6 : 4;
  const work = (of: typeof products): number =>
    of.reduce((sum, { inputs, outputs }) => sum + each * inputs * outputs, 0);
  const own = adapters === null ? 0 : (6 * adapterCount(shape, adapters)) / shape.numLayers;
  return {
    layer: work(products.slice(0, -1)) + own + 6 * shape.numHeads * shape.headDim * seq,
    head: work(products.slice(-1)),
  };
}

export interface StepWork {
  /** Of a token and one that it sees, itself counted half; by default those of whole causal sequences. */
  readonly pairs?: number | undefined;
  readonly adapters?: Adapters | null;
}

/** FLOPs of one update over all ranks. */
export function stepFlops(
  shape: ModelShape,
  seq: number,
  globalBatchSize: number,
  { pairs = (globalBatchSize * seq * seq) / 2, adapters = null }: StepWork = {},
): number {
  const { layer, head } = tokenFlops(shape, 0, adapters);
  const attention = 12 * shape.numHeads * shape.headDim * pairs;
  return globalBatchSize * seq * (shape.numLayers * layer + head) + shape.numLayers * attention;
}

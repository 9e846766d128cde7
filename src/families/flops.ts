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
 * recomputation are not counted.
 */
export function tokenFlops(shape: ModelShape, seq: number): TokenFlops {
  const products = linearShapes(shape, 1);
  const work = (of: typeof products): number => of.reduce((sum, { inputs, outputs }) => sum + 6 * inputs * outputs, 0);
  return {
    layer: work(products.slice(0, -1)) + 6 * shape.numHeads * shape.headDim * seq,
    head: work(products.slice(-1)),
  };
}

/**
 * FLOPs of one update over all ranks.
 * @param pairs of a token and one that it sees, itself counted half; by default those of whole causal sequences
 */
export function stepFlops(
  shape: ModelShape,
  seq: number,
  globalBatchSize: number,
  pairs = (globalBatchSize * seq * seq) / 2,
): number {
  const { layer, head } = tokenFlops(shape, 0);
  const attention = 12 * shape.numHeads * shape.headDim * pairs;
  return globalBatchSize * seq * (shape.numLayers * layer + head) + shape.numLayers * attention;
}

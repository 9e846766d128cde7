import type { ModelShape } from './model-shape.js';

/** Floating-point operations of a training step by part, a token: forward and backward, causal attention counted half. */
export interface TokenFlops {
  readonly layer: number;
  readonly head: number;
}

/**
 * Megatron-LM's formula (num_floating_point_operations in its training.py): 6 for each weight of a linear layer, and
 * 6 * heads * headDim * seq for the attention core. Norms, RoPE, softmax, embedding lookup, optimizer and recomputation
 * are not counted.
 */
export function tokenFlops(shape: ModelShape, seq: number): TokenFlops {
  const { hiddenSize: h, intermediateSize: f, numHeads, numKvHeads, headDim, vocabSize } = shape;
  const q = numHeads * headDim;
  const kv = numKvHeads * headDim;
  return { layer: 6 * h * (q + 2 * kv) + 6 * q * h + 18 * h * f + 6 * q * seq, head: 6 * h * vocabSize };
}

/** FLOPs of one update over all ranks. */
export function stepFlops(shape: ModelShape, seq: number, globalBatchSize: number): number {
  const { layer, head } = tokenFlops(shape, seq);
  return globalBatchSize * seq * (shape.numLayers * layer + head);
}

import type { ModelShape } from './model-shape.js';

/** A parameter of the whole model: our names are Hugging Face's. */
export interface ParameterSpec {
  readonly name: string;
  /** Global shape: [out, in] of a linear layer, [vocab, hidden] of embedding and head, [n] of a norm. */
  readonly shape: readonly number[];
  readonly kind: 'matrix' | 'norm';
}

export const EMBEDDING = 'model.embed_tokens.weight';
export const FINAL_NORM = 'model.norm.weight';
export const HEAD = 'lm_head.weight';

/** The parameters of decoder layer `layer` (from 0), in forward order. */
export function layerParameters(shape: ModelShape, layer: number): ParameterSpec[] {
  const { hiddenSize: h, intermediateSize: f, headDim: d } = shape;
  const q = shape.numHeads * d;
  const kv = shape.numKvHeads * d;
  const prefix = `model.layers.${layer}.`;
  return [
    norm(`${prefix}input_layernorm.weight`, h),
    matrix(`${prefix}self_attn.q_proj.weight`, q, h),
    matrix(`${prefix}self_attn.k_proj.weight`, kv, h),
    matrix(`${prefix}self_attn.v_proj.weight`, kv, h),
    norm(`${prefix}self_attn.q_norm.weight`, d),
    norm(`${prefix}self_attn.k_norm.weight`, d),
    matrix(`${prefix}self_attn.o_proj.weight`, h, q),
    norm(`${prefix}post_attention_layernorm.weight`, h),
    matrix(`${prefix}mlp.gate_proj.weight`, f, h),
    matrix(`${prefix}mlp.up_proj.weight`, f, h),
    matrix(`${prefix}mlp.down_proj.weight`, h, f),
  ];
}

/**
 * Every parameter of a dense Qwen3 model once, in forward order: embedding, layers, final norm, and the head unless it
 * is tied to the embedding.
 */
export function qwen3Parameters(shape: ModelShape): ParameterSpec[] {
  const { vocabSize, hiddenSize, numLayers, tieWordEmbeddings } = shape;
  return [
    matrix(EMBEDDING, vocabSize, hiddenSize),
    ...Array.from({ length: numLayers }, (_, layer) => layerParameters(shape, layer)).flat(),
    norm(FINAL_NORM, hiddenSize),
    ...(tieWordEmbeddings ? [] : [matrix(HEAD, vocabSize, hiddenSize)]),
  ];
}

function matrix(name: string, rows: number, cols: number): ParameterSpec {
  return { name, shape: [rows, cols], kind: 'matrix' };
}

function norm(name: string, length: number): ParameterSpec {
  return { name, shape: [length], kind: 'norm' };
}

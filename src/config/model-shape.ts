import type { RunConfig } from './schema.js';

/** The sizes of a Qwen3 model, as the code names them. The output width of the attention is numHeads * headDim. */
export interface ModelShape {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly tieWordEmbeddings: boolean;
  readonly initializerRange: number;
  readonly maxPositionEmbeddings: number;
}

/** The model's sizes out of a resolved configuration (or its `model` section alone). */
export function modelShape(cfg: Pick<RunConfig, 'model'>): ModelShape {
  const m = cfg.model;
  return {
    vocabSize: m.vocab_size,
    hiddenSize: m.hidden_size,
    intermediateSize: m.intermediate_size,
    numLayers: m.num_hidden_layers,
    numHeads: m.num_attention_heads,
    numKvHeads: m.num_key_value_heads,
    headDim: m.head_dim,
    rmsNormEps: m.rms_norm_eps,
    ropeTheta: m.rope_theta,
    tieWordEmbeddings: m.tie_word_embeddings,
    initializerRange: m.initializer_range,
    maxPositionEmbeddings: m.max_position_embeddings,
  };
}

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

/** The keys of a configuration's `model` section that say what is computed. */
export interface ModelSettings {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly rms_norm_eps: number;
  readonly rope_theta: number;
  readonly tie_word_embeddings: boolean;
  readonly initializer_range: number;
  readonly max_position_embeddings: number;
}

/** The model's sizes out of a resolved configuration (or its `model` section alone). */
export function modelShape(cfg: { readonly model: ModelSettings }): ModelShape {
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

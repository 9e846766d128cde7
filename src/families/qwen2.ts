import { DECODER_RULES, decoderLayer } from './decoder.js';
import type { Family } from './family.js';

/** Qwen2 and Qwen2.5: biases on q, k and v, no norms on the heads. */
export const QWEN2: Readonly<Family<'qwen2'>> = {
  name: 'qwen2',
  title: 'Qwen2 and Qwen2.5: biases on q, k and v',
  architecture: 'Qwen2ForCausalLM',
  layer: decoderLayer({ qkvBias: true, headNorms: false }),
  hf: {
    defaults: {
      num_key_value_heads: 32,
      rms_norm_eps: 1e-6,
      initializer_range: 0.02,
      max_position_embeddings: 32768,
    },
    rules: DECODER_RULES,
    slidingWindow: true,
    written: { attention_dropout: 0, hidden_act: 'silu', use_cache: true, use_sliding_window: false },
  },
};

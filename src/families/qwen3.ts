import { DECODER_RULES, decoderLayer } from './decoder.js';
import type { Family } from './family.js';

/** Dense Qwen3: RMSNorm over each head of q and k, no biases. */
export const QWEN3: Readonly<Family<'qwen3'>> = {
  name: 'qwen3',
  title: 'dense Qwen3: norms on the heads of q and k, no biases',
  architecture: 'Qwen3ForCausalLM',
  layer: decoderLayer({ qkvBias: false, headNorms: true }),
  hf: {
    defaults: {
      num_key_value_heads: 32,
      head_dim: 128,
      rms_norm_eps: 1e-6,
      initializer_range: 0.02,
      max_position_embeddings: 32768,
    },
    rules: [
      ...DECODER_RULES,
      { key: 'attention_bias', plain: [false], why: 'Qwen3 models have no biases and none are built for them' },
    ],
    slidingWindow: true,
    written: {
      attention_bias: false,
      attention_dropout: 0,
      hidden_act: 'silu',
      use_cache: true,
      use_sliding_window: false,
    },
  },
};

import { DECODER_RULES, decoderLayer } from './decoder.js';
import type { Family } from './family.js';

/** Llama 2 and 3: no biases, no norms on the heads. */
export const LLAMA: Readonly<Family<'llama'>> = {
  name: 'llama',
  title: 'Llama: no biases, no norms on heads',
  architecture: 'LlamaForCausalLM',
  layer: decoderLayer({ qkvBias: false, headNorms: false }),
  hf: {
    defaults: { rms_norm_eps: 1e-6, initializer_range: 0.02, max_position_embeddings: 2048 },
    rules: [
      ...DECODER_RULES,
      { key: 'attention_bias', plain: [false], why: 'biases are built for q, k and v alone, and this has one on o' },
      { key: 'mlp_bias', plain: [false], why: 'biases are built for q, k and v alone' },
    ],
    slidingWindow: false,
    written: { attention_bias: false, attention_dropout: 0, hidden_act: 'silu', mlp_bias: false, use_cache: true },
  },
};

import type { HfRule, LinearSpec, NormSpec } from './family.js';

/** Names of what is outside of the layers, in every family that is built. */
export const EMBEDDING = 'model.embed_tokens.weight';
export const FINAL_NORM = 'model.norm.weight';
export const HEAD = 'lm_head.weight';
/** What a model gives for each token: logits of its vocabulary, or one number. */
export type HeadKind = 'language' | 'value';
/** One row: what a value or reward model has in place of `HEAD`, as Hugging Face's classifiers name it. */
export const VALUE_HEAD = 'score.weight';

/** What comes before the name of each parameter of decoder layer `layer` (from 0). */
export function layerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

/** Grouped-query attention and SwiGLU, each on the normalised residual stream: what the families share. */
export function decoderLayer(has: { qkvBias: boolean; headNorms: boolean }): readonly (LinearSpec | NormSpec)[] {
  const norm = (block: NormSpec['block'], name: string, width: NormSpec['width']): NormSpec => {
    return { kind: 'norm', block, name, width };
  };
  const headNorms = [norm('q', 'self_attn.q_norm', 'head'), norm('k', 'self_attn.k_norm', 'head')];
  return [
    norm('attention', 'input_layernorm', 'hidden'),
    {
      kind: 'linear',
      block: 'qkv',
      parts: [
        { name: 'self_attn.q_proj', outputs: 'q' },
        { name: 'self_attn.k_proj', outputs: 'kv' },
        { name: 'self_attn.v_proj', outputs: 'kv' },
      ],
      inputs: 'hidden',
      cut: 'outputs',
      bias: has.qkvBias,
    },
    ...(has.headNorms ? headNorms : []),
    {
      kind: 'linear',
      block: 'o',
      parts: [{ name: 'self_attn.o_proj', outputs: 'hidden' }],
      inputs: 'q',
      cut: 'inputs',
      bias: false,
    },
    norm('mlp', 'post_attention_layernorm', 'hidden'),
    {
      kind: 'linear',
      block: 'gate+up',
      parts: [
        { name: 'mlp.gate_proj', outputs: 'ffn' },
        { name: 'mlp.up_proj', outputs: 'ffn' },
      ],
      inputs: 'hidden',
      cut: 'outputs',
      bias: false,
    },
    {
      kind: 'linear',
      block: 'down',
      parts: [{ name: 'mlp.down_proj', outputs: 'hidden' }],
      inputs: 'ffn',
      cut: 'inputs',
      bias: false,
    },
  ];
}

/** What no family's kernels compute, whatever the family. */
export const DECODER_RULES: readonly HfRule[] = [
  { key: 'attention_dropout', plain: [0], why: 'dropout is not built' },
  { key: 'hidden_act', plain: ['silu', 'swish'], why: 'only silu (also called swish) is built' },
];

/** Where a value came from. `hf` is a Hugging Face config.json, `derived` follows from other values. */
export type OriginKind = 'recipe' | 'file' | 'flag' | 'override' | 'hf' | 'derived';

/** One key of a configuration as somebody wrote it. `path` is [section, key], or [section] whose keys `value` then holds. */
export interface Setting {
  readonly path: readonly string[];
  readonly value: unknown;
  readonly origin: OriginKind;
  /** What a reader needs to find it: `run.yaml:12:5`, `--tp-size`, `rng.seed=3`, `recipe qwen3-tiny`. */
  readonly place: string;
}

/** The name that Megatron's users know -> ours. Both are accepted; the resolved configuration shows ours. */
export const ALIASES: Readonly<Record<string, string>> = {
  'model.num_layers': 'model.num_hidden_layers',
  'model.ffn_hidden_size': 'model.intermediate_size',
  'model.num_query_groups': 'model.num_key_value_heads',
  'model.kv_channels': 'model.head_dim',
  'model.rotary_base': 'model.rope_theta',
  'model.layernorm_epsilon': 'model.rms_norm_eps',
  'model.init_method_std': 'model.initializer_range',
  'model.share_embeddings_and_output_weights': 'model.tie_word_embeddings',
  'train.eval_interval': 'validation.eval_interval',
  'train.eval_iters': 'validation.eval_iters',
};

/** Settings of a plain object such as a recipe's, in its order; `place` names the whole object. */
export function settingsOf(values: object, origin: OriginKind, place: string): Setting[] {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([section, value]) => ({ path: [section], value: value as unknown, origin, place }));
}

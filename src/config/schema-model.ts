import { z } from 'zod';

const size = z.int().min(1);
const stageLayers = size.nullable().default(null);

/** Section `model`: sizes by Hugging Face's names (or from `hf_path`), parallelism by Megatron's. */
export const modelSchema = z.strictObject({
  hf_path: z.string().min(1).nullable().default(null).describe('Hugging Face folder whose config.json gives the sizes'),
  vocab_size: size.describe('rows of the embedding'),
  hidden_size: size.describe('width of the residual stream'),
  intermediate_size: size.describe('width of the SwiGLU'),
  num_hidden_layers: size.max(10_000).describe('decoder layers'),
  num_attention_heads: size.describe('query heads'),
  num_key_value_heads: size.describe('key and value heads; default num_attention_heads'),
  head_dim: size.multipleOf(2).describe('width of a head; default hidden_size / num_attention_heads'),
  rms_norm_eps: z.number().positive().default(1e-6).describe('epsilon of every RMSNorm'),
  rope_theta: z.number().positive().default(1e6).describe('base of the rotary embedding'),
  tie_word_embeddings: z.boolean().default(true).describe('the output layer shares the embedding'),
  initializer_range: z.number().positive().default(0.02).describe('standard deviation of new weights'),
  max_position_embeddings: size.default(40960).describe('longest sequence the model is meant for'),
  seq_length: size.default(4096).describe('tokens of a sample; set here only'),

  tensor_model_parallel_size: size.default(1).describe('ranks that share every layer'),
  pipeline_model_parallel_size: size.default(1).describe('stages that the layers are cut into'),
  virtual_pipeline_model_parallel_size: size.nullable().default(null).describe('chunks a stage (interleaved schedule)'),
  context_parallel_size: size.default(1).describe('ranks that share every sequence'),
  expert_model_parallel_size: size.default(1).describe('ranks that share the experts'),
  sequence_parallel: z
    .boolean()
    .describe('shard norms and residuals over tp; default true where tp > 1 divides the tokens of a micro-batch'),
  num_layers_in_first_pipeline_stage: stageLayers.describe('by hand; null balances by FLOPs'),
  num_layers_in_last_pipeline_stage: stageLayers.describe('by hand; null balances by FLOPs'),

  recompute_granularity: z
    .enum(['none', 'selective', 'full'])
    .default('none')
    .describe('what backward computes again instead of keeping it'),
  deterministic: z.boolean().default(true).describe('the same command gives the same bits'),
});

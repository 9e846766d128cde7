import { z } from 'zod';
import { MODEL_SCHEMA } from '../families/model-shape.js';

const size = z.int().min(1);
const stageLayers = size.nullable().default(null);

/** Section `model`: sizes by Hugging Face's names (or from `hf_path`), parallelism by Megatron's. */
export const modelSchema = z.strictObject({
  hf_path: z.string().min(1).nullable().default(null).describe('Hugging Face folder whose config.json gives the sizes'),
  ...MODEL_SCHEMA,
  seq_length: size.default(4096).describe('tokens of a sample; set here only'),

  tensor_model_parallel_size: size.default(1).describe('ranks that share every layer'),
  pipeline_model_parallel_size: size.default(1).describe('stages that the layers are cut into'),
  virtual_pipeline_model_parallel_size: size.nullable().default(null).describe('chunks a stage (interleaved schedule)'),
  context_parallel_size: size.default(1).describe('ranks that share every sequence'),
  cp_comm_type: z
    .enum(['all_gather', 'p2p'])
    .default('all_gather')
    .describe('how keys and values come to the ranks of a sequence'),
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
  recompute_modules: z
    .array(z.enum(['norm', 'rope', 'swiglu', 'attention', 'mlp']))
    .min(1)
    .default(['norm', 'rope', 'swiglu'])
    .describe(
      'what selective drops of a layer: norm, rope and swiglu cost no product, attention and mlp theirs once more',
    ),
  loss_chunk_tokens: size
    .default(8192)
    .describe(
      'the most tokens of a micro-batch whose logits are in memory at once; cross entropy takes them in equal parts',
    ),
  deterministic: z.boolean().default(true).describe('the same command gives the same bits'),
  fp8_first_last_layers_bf16: z
    .int()
    .min(0)
    .default(2)
    .describe('under fp8_mixed, decoder layers at either end of the whole model that stay in bf16'),
  fp8_wgrad: z.boolean().default(true).describe('under fp8_mixed, gradients of weights by e4m3 too; false: in bf16'),
  batch_invariant: z
    .boolean()
    .default(false)
    .describe(
      'a token has the same bits whatever it is computed with, also sampled; on a GPU in bf16, always on the CPU',
    ),
});

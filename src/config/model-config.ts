// Written by scripts/config-types.mjs from configs/schema.json.
import type { RopeScaling } from '../families/rope.js';

/** shape of the model and of its parallelism. */
export interface ModelConfig {
  /** Hugging Face folder whose config.json gives the sizes. Default: null. */
  hf_path: string | null;
  /** what a layer is made of. Default: "qwen3". */
  family: 'qwen3' | 'qwen2' | 'llama';
  /** rows of the embedding. */
  vocab_size: number;
  /** width of the residual stream. */
  hidden_size: number;
  /** width of the SwiGLU. */
  intermediate_size: number;
  /** decoder layers. */
  num_hidden_layers: number;
  /** query heads. */
  num_attention_heads: number;
  /** key and value heads; default num_attention_heads. */
  num_key_value_heads: number;
  /** width of a head; default hidden_size / num_attention_heads. */
  head_dim: number;
  /** epsilon of every RMSNorm. Default: 0.000001. */
  rms_norm_eps: number;
  /** base of the rotary embedding. Default: 1000000. */
  rope_theta: number;
  /** how rotary frequencies are stretched; null leaves them. Default: null. */
  rope_scaling: RopeScaling;
  /** the output layer shares the embedding. Default: true. */
  tie_word_embeddings: boolean;
  /** token whose embedding gets no gradient from the input. Default: null. */
  pad_token_id: number | null;
  /** standard deviation of new weights. Default: 0.02. */
  initializer_range: number;
  /** longest sequence the model is meant for. Default: 40960. */
  max_position_embeddings: number;
  /** tokens of a sample; set here only. Default: 4096. */
  seq_length: number;
  /** ranks that share every layer. Default: 1. */
  tensor_model_parallel_size: number;
  /** stages that the layers are cut into. Default: 1. */
  pipeline_model_parallel_size: number;
  /** chunks a stage (interleaved schedule). Default: null. */
  virtual_pipeline_model_parallel_size: number | null;
  /** ranks that share every sequence. Default: 1. */
  context_parallel_size: number;
  /** how keys and values come to the ranks of a sequence. Default: "all_gather". */
  cp_comm_type: 'all_gather' | 'p2p';
  /** ranks that share the experts. Default: 1. */
  expert_model_parallel_size: number;
  /** shard norms and residuals over tp; default true where tp > 1 divides the tokens of a micro-batch. */
  sequence_parallel: boolean;
  /** by hand; null balances by FLOPs. Default: null. */
  num_layers_in_first_pipeline_stage: number | null;
  /** by hand; null balances by FLOPs. Default: null. */
  num_layers_in_last_pipeline_stage: number | null;
  /** what backward computes again instead of keeping it. Default: "none". */
  recompute_granularity: 'none' | 'selective' | 'full';
  /** what selective drops of a layer: norm, rope and swiglu cost no product, attention and mlp theirs once more. */
  recompute_modules: ('norm' | 'rope' | 'swiglu' | 'attention' | 'mlp')[];
  /** the most tokens of a micro-batch whose logits are in memory at once; cross entropy takes them in equal parts. Default: 8192. */
  loss_chunk_tokens: number;
  /** the same command gives the same bits. Default: true. */
  deterministic: boolean;
  /** under fp8_mixed, decoder layers at either end of the whole model that stay in bf16. Default: 2. */
  fp8_first_last_layers_bf16: number;
  /** under fp8_mixed, gradients of weights by e4m3 too; false: in bf16. Default: true. */
  fp8_wgrad: boolean;
  /** a token has the same bits whatever it is computed with, also sampled; on a GPU in bf16, always on the CPU. Default: false. */
  batch_invariant: boolean;
}

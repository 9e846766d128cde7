import { expect } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import type { RunConfig } from '../../src/config/schema.js';
import { runWorkers } from './run-workers.js';

export interface TransferLayout {
  readonly tp: number;
  readonly pp: number;
  readonly dp: number;
  readonly first?: number;
}

export const SHARDING = [
  { optimizer: { use_distributed_optimizer: true }, ddp: { data_parallel_sharding_strategy: 'optim' } },
  { optimizer: { use_distributed_optimizer: false }, ddp: { data_parallel_sharding_strategy: 'no_shard' } },
  { optimizer: { use_distributed_optimizer: true }, ddp: { data_parallel_sharding_strategy: 'optim_grads' } },
] as const;

/** Weights that go into a model that is trained. */
export interface Adoption {
  readonly from: TransferLayout;
  readonly to: TransferLayout;
  readonly sharding: (typeof SHARDING)[number];
  readonly precision: 'fp32' | 'bf16_mixed';
  /** Whether the source is trained too, and so has main parameters. */
  readonly source: 'trained' | 'frozen';
  /** False where the device cannot train in that precision; what an update would begin from is compared all the same. */
  readonly updates: boolean;
}

/** A small model whose vocabulary tp does not divide, its embedding tied. */
function smallConfig(): RunConfig {
  const config = qwen3TinyPretrainConfig({ train_iters: 2, seq_length: 16, micro_batch_size: 1, global_batch_size: 4 });
  const heads = { head_dim: 16, num_attention_heads: 4, num_key_value_heads: 4 };
  Object.assign(config.model, { hidden_size: 64, intermediate_size: 96, ...heads, vocab_size: 301 });
  return config;
}

/** Runs the adoptions, and holds each target to a model that was loaded with the source's weights, bit for bit. */
export async function expectAdoptions(
  adoptions: readonly Adoption[],
  { ranks, device = 'cpu', ranksPerGpu = 1 }: { ranks: number; device?: 'cpu' | 'cuda'; ranksPerGpu?: number },
): Promise<void> {
  const config = smallConfig();
  config.dist.ranks_per_gpu = ranksPerGpu;
  const trained = adoptions.map(({ from, to, sharding, precision, source, updates }) => ({
    ...{ from, to, source, updates, mixed_precision: precision },
    optimizer: { ...config.optimizer, ...sharding.optimizer },
    ddp: { ...config.ddp, ...sharding.ddp },
  }));
  const { exitCode, events, log } = await runWorkers('transfer', config, ranks, { pairs: [], trained }, device);
  expect(exitCode, log).toBe(0);
  const adopted = events.filter(({ type }) => type === 'adopted') as unknown as ({ pair: number } & object)[];
  expect(adopted).toHaveLength(adoptions.reduce((sum, { to: { tp, pp, dp } }) => sum + tp * pp * dp, 0));
  const right = { keepsMoments: true, equal: true, agree: true, equalAfter: true };
  for (const found of adopted) expect(found, JSON.stringify(adoptions[found.pair])).toMatchObject(right);
}

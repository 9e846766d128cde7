import { expect, test } from 'vitest';
import { qwen34bPretrainConfig } from '../../recipes/qwen3.js';
import type { RunConfig } from '../../src/config/schema.js';
import { planRun } from '../../src/train/plan.js';

function workspace(change: (cfg: RunConfig) => void, ranks = 1): number {
  const cfg = qwen34bPretrainConfig({ seq_length: 4096, micro_batch_size: 1, global_batch_size: 8 });
  change(cfg);
  return planRun(cfg, ranks, 'cuda').ranks[0]!.bytes.workspace;
}

test('the workspace that cuDNN takes for attention is in the plan, in the sizes that were measured', () => {
  const [deterministic, free] = [true, false].map((wanted) => workspace((cfg) => (cfg.model.deterministic = wanted)));
  // 32 heads of 4096 x 4096 scores in bf16, or one fp32 dQ of 32 heads of 128 in their place.
  const rows = 32 * 4096;
  expect(deterministic! - free!).toBe(rows * 4096 * 2 - rows * 128 * 4);
  // 8 of the heads have keys and values: with 32 there is no copy of dK and dV for all heads.
  const whole = workspace((cfg) => (cfg.model.num_key_value_heads = 32));
  // What else in the workspace depends on them: one gradient of the fused projection, 24 key and 24 value heads wider.
  expect(deterministic! - whole).toBe(2 * rows * 128 * 2 - 4096 * (2 * 24 * 128) * 2);
});

test.each([2, 4, 8])(
  'keys of %i ranks are held twice where they are gathered, six times those of one rank in a ring',
  (size) => {
    const [gathered, ring] = (['all_gather', 'p2p'] as const).map((commType) =>
      workspace((cfg) => {
        Object.assign(cfg.model, { context_parallel_size: size, cp_comm_type: commType });
      }, size),
    );
    // Of 8 key and 8 value heads of 128, in bf16.
    const ofOneRank = (4096 / size) * 2 * 8 * 128 * 2;
    expect(gathered! - ring!).toBe((2 * size - 6) * ofOneRank);
  },
);

test.each([
  [4096, 4096, 4096],
  [16_384, 8192, 8192],
  [12_288, 8192, 6144],
  [4096, 3000, 2048],
  [4096, 100, 100],
])('of %i tokens in parts of at most %i the logits of %i are there at once', (tokens, most, there) => {
  const of = (chunk: number): number =>
    workspace((cfg) => {
      Object.assign(cfg.train, { micro_batch_size: tokens / 4096, global_batch_size: 12 });
      cfg.model.loss_chunk_tokens = chunk;
    });
  expect(of(tokens) - of(most)).toBe((tokens - there) * 151_936 * 2);
});

/** A rank of the test of label-smoothing.ts: a loss and its gradients, on tp as large as the test has ranks. */
import {
  crossEntropy,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  SampleBatches,
  setupGroups,
  setupOptimizer,
  type ParameterSlice,
} from '../../src/index.js';
import type { RankFunction } from '../../src/testing/run-ranks.js';
import { labelSmoothing } from './label-smoothing.js';

export interface Smoothed {
  readonly loss: number;
  readonly gradients: readonly ParameterSlice[];
}

export const runRank: RankFunction<Smoothed, { epsilon: number | null }> = async ({
  device,
  runtime,
  worldSize,
  options,
}) => {
  // A vocabulary that two ranks cannot share alike.
  const sizes = { seqLength: 8, microBatchSize: 2, vocabSize: 101 };
  const cfg = qwen3TinyPretrainConfig({
    tensor_model_parallel_size: worldSize,
    num_hidden_layers: 1,
    hidden_size: 64,
    vocab_size: sizes.vocabSize,
    seq_length: sizes.seqLength,
    micro_batch_size: sizes.microBatchSize,
    global_batch_size: sizes.microBatchSize,
  });
  const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const loss = options.epsilon === null ? crossEntropy() : labelSmoothing(options.epsilon);
  const model = await provideDistributedModel(cfg, { pgCollection, device, loss });
  const batches = new SampleBatches({ count: 1, ...sizes }).fill((k) => ({
    inputIds: Int32Array.from({ length: sizes.seqLength + 1 }, (_, i) => (37 * k + 11 * i) % sizes.vocabSize),
    lossMask: Uint8Array.from({ length: sizes.seqLength + 1 }, (_, i) => Number(i > k)),
  }));
  const { optimizer } = setupOptimizer(cfg, model, { pgCollection });
  model.forwardBackward(batches, { hooks: optimizer.hooks });
  const { lossSum, tokens } = model.readLoss()!;
  optimizer.reduceGradients(); // what of a norm's gradient is in other ranks' heads and tokens
  const gradients = model.gradients();
  model.dispose();
  return { loss: lossSum / tokens, gradients };
};

// A rank of four models of 64 layers at once, on the same ranks: two that are trained, a frozen one and a value model.
import {
  HyperCommGrid,
  ProcessGroupCollection,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  SampleBatches,
  setupOptimizer,
} from '../../dist/src/index.js';

const MODELS = {
  policy: { trainable: true },
  value: { trainable: true, head: 'value' },
  reference: { trainable: false },
  reward: { trainable: false, head: 'value' },
};

export async function runRank({ worldSize, device, runtime }) {
  const sizes = { seqLength: 8, microBatchSize: 1, vocabSize: 64 };
  const cfg = qwen3TinyPretrainConfig({
    ...{ hidden_size: 32, intermediate_size: 32, num_hidden_layers: 64, head_dim: 16, vocab_size: sizes.vocabSize },
    ...{ seq_length: sizes.seqLength, micro_batch_size: sizes.microBatchSize, global_batch_size: 2 },
    ...{ tensor_model_parallel_size: 2, pipeline_model_parallel_size: 2 },
  });
  const sample = (k) => ({ inputIds: Int32Array.from({ length: sizes.seqLength + 1 }, (_, i) => (k + 5 * i) % 64) });
  const batches = new SampleBatches({ count: 2, ...sizes })
    .fill(sample)
    .map((batch) => ({ ...batch, returns: batch.mask }));
  const models = [];
  for (const [name, options] of Object.entries(MODELS)) {
    const shape = [2, 1, 1, 2];
    const dimNames = ['tp', 'cp', 'dp', 'pp'];
    const grid = new HyperCommGrid({ shape, dimNames, worldSize, backend: 'nccl', name });
    const pgCollection = await ProcessGroupCollection.fromGrid(grid, runtime);
    const model = await provideDistributedModel(cfg, { pgCollection, device, ...options });
    const optimizer = options.trainable ? setupOptimizer(cfg, model, { pgCollection }).optimizer : null;
    models.push({ model, optimizer });
  }
  runtime.watch();
  const losses = models.map(({ model, optimizer }) => {
    if (optimizer === null) model.evaluate(batches);
    else model.forwardBackward(batches, { hooks: optimizer.hooks });
    optimizer?.step();
    return model.readLoss()?.lossSum ?? null;
  });
  const held = device.binding.handles();
  for (const { model } of models) model.dispose();
  return { losses, held, after: device.binding.handles() };
}

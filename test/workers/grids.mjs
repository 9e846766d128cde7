// Ranks of models that are each on ranks of their own, which are no block: trained, saved, loaded and transferred.
import {
  HyperCommGrid,
  ProcessGroupCollection,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  RunCheckpoints,
  setupOptimizer,
  setupRunData,
  train,
  validateLayout,
  WeightTransfer,
} from '../../dist/src/index.js';

const log = { info: () => undefined, warn: () => undefined };

function configOf({ tp = 1, pp = 1, seed = 1, checkpoint = {} }) {
  return qwen3TinyPretrainConfig({
    ...{ hidden_size: 64, num_hidden_layers: 2, vocab_size: 65, seq_length: 8, micro_batch_size: 1 },
    ...{ global_batch_size: 4, train_iters: 4, tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp },
    dataset: { type: 'mock' },
    rng: { seed },
    checkpoint,
  });
}

/** The groups of a model on `ranks`; null on the others. */
async function join({ rank, worldSize, runtime }, name, { ranks, tp = 1, pp = 1 }) {
  const shape = [tp, 1, ranks.length / tp / pp, pp];
  const dimNames = ['tp', 'cp', 'dp', 'pp'];
  const grid = new HyperCommGrid({ shape, dimNames, ranks, worldSize, backend: 'nccl', name });
  return grid.isRankInGrid(rank) ? await ProcessGroupCollection.fromGrid(grid, runtime) : null;
}

/** A model that is trained; null on ranks that are not of it. */
async function open(context, name, spec) {
  const { device, store } = context;
  const pgCollection = await join(context, name, spec);
  if (pgCollection === null) return null;
  const cfg = configOf(spec);
  const layout = validateLayout(cfg, spec.ranks.length, { device: 'cpu' });
  const checkpoints = await RunCheckpoints.open({ cfg, layout, device, store, groups: pgCollection, log });
  const model = await provideDistributedModel(cfg, { pgCollection, device, checkpoint: checkpoints.resume });
  const parts = { cfg, pgCollection, model, ...setupOptimizer(cfg, model, { pgCollection }) };
  const data = await setupRunData(cfg, pgCollection, checkpoints.position);
  await checkpoints.begin(parts.optimizer.state, data);
  let step = checkpoints.position.startStep - 1;
  return {
    model,
    /** Losses of the updates up to `until`. */
    trainTo: async (until) => {
      const losses = [];
      while (step++ < until) losses.push((await train({ ...parts, data, startStep: step, until: step })).loss);
      await checkpoints.finish(--step);
      return losses;
    },
    close: () => {
      data.close();
      model.dispose();
    },
  };
}

/** Losses of one model. */
export async function alone(context) {
  const member = await open(context, 'alone', context.options);
  const losses = await member.trainTo(4);
  member.close();
  return losses;
}

/** Two models on interleaved ranks, saved; then each loaded by the other's ranks, in other layouts. */
export async function interleaved(context) {
  const { rank, runtime, device, store, options } = context;
  const group = await runtime.createGroups('world', [[0, 1, 2, 3]]);
  const losses = {};
  const trainAll = async (models, until) => {
    const members = [];
    for (const [name, spec] of Object.entries(models)) members.push([name, await open(context, name, spec)]);
    for (const [name, member] of members) if (member !== null) losses[name] = await member.trainTo(until);
    return members;
  };
  for (const [, member] of await trainAll(options.first, 2)) member?.close();
  group.barrier(); // what the others load is saved
  const members = await trainAll(options.then, 4);

  // The first of them into a frozen one that shares a rank with it.
  const source = members[0][1];
  const pgCollection = await join(context, 'sampler', options.sampler);
  const cfg = configOf({ ...options.sampler, seed: 3 });
  const target = pgCollection && (await provideDistributedModel(cfg, { pgCollection, device, trainable: false }));
  const models = { source: source?.model ?? null, target };
  const transfer = await WeightTransfer.create({ group, store, name: 'weights', ...models });
  transfer.run();
  const weights = Object.fromEntries(Object.entries(models).map(([name, model]) => [name, model?.parameters() ?? []]));
  transfer.dispose();
  for (const [, member] of members) member?.close();
  target?.dispose();
  return { rank, losses, weights };
}

// A worker that brings a trained policy's weights into models of other layouts and back, and compares the bits.
import {
  CommRuntime,
  HyperCommGrid,
  openDevice,
  ProcessGroupCollection,
  provideDistributedModel,
  WeightTransfer,
} from '../../dist/src/index.js';

export async function runWorker(context) {
  const { config, rank, worldSize, store, options } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  let made = 0;
  const join = async ({ tp, pp, dp, first = 0 }, seed, { trainable = false, layers } = {}) => {
    const grid = new HyperCommGrid({
      ...{ shape: [tp, 1, dp, pp], dimNames: ['tp', 'cp', 'dp', 'pp'], rankOffset: first, worldSize, backend: 'nccl' },
      name: `model-${made++}`,
    });
    if (!grid.isRankInGrid(rank)) return null;
    const pgCollection = await ProcessGroupCollection.fromGrid(grid, runtime);
    return await provideDistributedModel(
      {
        ...config,
        rng: { ...config.rng, seed },
        model: { ...config.model, num_hidden_layers: layers ?? config.model.num_hidden_layers },
      },
      { pgCollection, device, trainable },
    );
  };
  const world = await runtime.createGroups('world', [[...Array(worldSize).keys()]]);
  const bitsOf = (model) =>
    new Map((model?.parameters() ?? []).map(({ name, values }) => [name, Buffer.from(values.buffer.slice(0))]));
  for (const [i, { from, to }] of options.pairs.entries()) {
    // The way there and back, into a model that was another before.
    const [policy, sampler, again] = [await join(from, 1), await join(to, 2), await join(from, 3)];
    const common = { group: world, store, stagingBytes: options.stagingBytes };
    const there = await WeightTransfer.create({ ...common, name: `${i}/there`, source: policy, target: sampler });
    const back = await WeightTransfer.create({ ...common, name: `${i}/back`, source: sampler, target: again });
    const [wanted, before] = [bitsOf(policy), bitsOf(again)];
    there.run();
    back.run();
    const found = bitsOf(again);
    const differ = [...wanted].filter(([name, bits]) => !found.get(name).equals(bits)).map(([name]) => name);
    const unchanged = [...wanted].filter(([name, bits]) => before.get(name).equals(bits)).length;
    context.emit({ type: 'moved', pair: i, rank, parameters: wanted.size, unchanged, differ, bytes: there.bytes });
    for (const each of [there, back]) each.dispose();
    for (const model of [policy, sampler, again]) model?.dispose();
  }
  for (const [i, target] of (options.refused ?? []).entries()) {
    const layout = { tp: 1, pp: 1, dp: worldSize };
    const [source, other] = [await join(layout, 1), await join(layout, 2, target)];
    const asked = { group: world, store, name: `refused-${i}`, source, target: other };
    const error = await WeightTransfer.create(asked).catch((cause) => cause);
    context.emit({ type: 'refused', code: error.code, message: error.message });
    for (const model of [source, other]) model.dispose();
  }
  runtime.destroyAll();
  device.close();
}

// A worker that brings a policy's weights into models of other layouts and back, and compares the bits; and into models that are
// trained, whose next update is to be that of a model which was loaded with these weights.
import {
  CommRuntime,
  HyperCommGrid,
  openDevice,
  ProcessGroupCollection,
  provideDistributedModel,
  setupOptimizer,
  setupRunData,
  WeightTransfer,
} from '../../dist/src/index.js';
import { loadWeights, RandomWeights } from '../../dist/src/model/parameters/weight-source.js';
import { DistributedModel } from '../../dist/src/model/stage/distributed-model.js';
import { stageSpec } from '../../dist/src/model/stage/stage-spec.js';
import { buildStage, stagingOf } from '../../dist/src/model/stage/stage.js';

export async function runWorker(context) {
  const { config, rank, worldSize, store, options } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  let made = 0;
  const gridOf = async ({ tp, pp, dp, first = 0 }) => {
    const grid = new HyperCommGrid({
      ...{ shape: [tp, 1, dp, pp], dimNames: ['tp', 'cp', 'dp', 'pp'], rankOffset: first, worldSize, backend: 'nccl' },
      name: `model-${made++}`,
    });
    return grid.isRankInGrid(rank) ? await ProcessGroupCollection.fromGrid(grid, runtime) : null;
  };
  const join = async (layout, seed, { trainable = false, layers, pgCollection, ...changes } = {}) => {
    const groups = pgCollection === undefined ? await gridOf(layout) : pgCollection;
    if (groups === null) return null;
    return await provideDistributedModel(
      {
        ...config,
        ...changes,
        rng: { ...config.rng, seed },
        model: { ...config.model, num_hidden_layers: layers ?? config.model.num_hidden_layers, ...layout.model },
      },
      { pgCollection: groups, device, trainable },
    );
  };
  /** The parameters of a model in bf16, and an optimizer's memory of them: all that a CPU can have of one. */
  const hold = async (layout, seed, { trainable, pgCollection, ...changes }) => {
    const groups = pgCollection === undefined ? await gridOf(layout) : pgCollection;
    if (groups === null) return null;
    const { tp, cp, dpCp, pp } = groups;
    const spec = stageSpec({ ...config, ...changes }, groups, { device: device.kind, trainable });
    const stage = buildStage({ ...spec, microBatches: 0 }, { device, tp, cp, dpCp });
    stage.plan.commit(device);
    const { env, buffer, shape, optimizer } = stage;
    await loadWeights(
      env.ops,
      buffer.buckets,
      new RandomWeights(env.ops, seed, shape.initializerRange),
      (bucket) => stagingOf(stage, bucket),
      (bucket, values) => optimizer?.adopt(env.ops, bucket, values),
    );
    return new DistributedModel(stage, { tp, pp });
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
  /** Weights, main parameters and moments of a model that is trained, as bytes. */
  const stateOf = (model, kinds = ['main', 'm', 'v']) =>
    model.stage.optimizer.buckets.flatMap((state) =>
      [state.bucket.params, ...kinds.map((kind) => state[kind])].map((tensor) => {
        const bytes = new Uint8Array(tensor.bytes);
        device.read(tensor, bytes);
        return Buffer.from(bytes);
      }),
    );
  const same = (one, other) => one.length === other.length && one.every((bits, i) => bits.equals(other[i]));
  for (const [i, { from, to, updates, source: how, ...changes }] of (options.trained ?? []).entries()) {
    const pgCollection = await gridOf(to);
    const build = changes.mixed_precision === 'bf16_mixed' && device.kind === 'cpu' ? hold : join;
    const policy = await build(from, 1, { ...changes, trainable: how !== 'frozen' });
    const [target, loaded] = [
      await build(to, 2, { ...changes, trainable: true, pgCollection }),
      // The weights that the policy has, as it has them.
      await build(to, 1, { ...changes, trainable: true, pgCollection }),
    ];
    const transfer = await WeightTransfer.create({ group: world, store, name: `trained-${i}`, source: policy, target });
    const [own, other] = [target, loaded].map(
      (model) => model && setupOptimizer({ ...config, ...changes }, model, { pgCollection }).optimizer,
    );
    const data = target && (await setupRunData(config, pgCollection));
    const update = (model, optimizer) => {
      if (!updates || model === null) return;
      model.forwardBackward(data.next(1), { hooks: optimizer.hooks });
      optimizer.step();
    };
    // So that it has moments, and parameters on their way between replicas.
    update(target, own);
    const before = target && stateOf(target, ['m', 'v']).filter((_, at) => at % 3 !== 0);
    transfer.run();
    const result = { type: 'adopted', pair: i, rank };
    if (target !== null) {
      const after = stateOf(target, ['m', 'v']).filter((_, at) => at % 3 !== 0);
      const found = { keepsMoments: same(before, after) };
      // A frozen policy has rounded weights alone.
      found.equal = how === 'frozen' || same(stateOf(target, ['main']), stateOf(loaded, ['main']));
      found.agree = target.stage.optimizer.buckets.every(({ bucket, main }) => {
        if (main.dtype === bucket.params.dtype) return true;
        const [values, rounded] = [new Float32Array(main.size), new Uint16Array(bucket.size)];
        device.read(main, values);
        device.read(bucket.params, rounded);
        const at = main.size === bucket.size ? 0 : bucket.shardSize * bucket.replicas.rank;
        const bits = new Uint32Array(values.buffer);
        // Round to nearest, to even where both are as near.
        return bits.every((x, j) => (x + 0x7fff + ((x >> 16) & 1)) >>> 16 === rounded[at + j]);
      });
      own.initialize();
      update(target, own);
      update(loaded, other);
      found.equalAfter = how === 'frozen' || same(stateOf(target), stateOf(loaded));
      context.emit({ ...result, ...found });
    }
    data?.close();
    transfer.dispose();
    for (const model of [policy, target, loaded]) model?.dispose();
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

// A worker that brings a policy with adapters into a plain model and into one with the same adapters, each spread otherwise, and
// compares the bits with those of models that were loaded.
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
  const world = await runtime.createGroups('world', [[...Array(worldSize).keys()]]);
  let made = 0;
  const open = async ({ tp, pp }, folder, peft) => {
    const shape = { shape: [tp, 1, 1, pp], dimNames: ['tp', 'cp', 'dp', 'pp'], worldSize, backend: 'nccl' };
    const grid = new HyperCommGrid({ ...shape, name: `model-${made++}` });
    const pgCollection = await ProcessGroupCollection.fromGrid(grid, runtime);
    const checkpoint = { ...config.checkpoint, pretrained_checkpoint: folder };
    return await provideDistributedModel({ ...config, peft, checkpoint }, { pgCollection, device, trainable: false });
  };
  const bitsOf = (model) => new Map(model.parameters().map(({ name, values }) => [name, Buffer.from(values.buffer)]));
  const [wide, deep] = [
    { tp: worldSize, pp: 1 },
    { tp: 1, pp: worldSize },
  ];
  const policy = await open(wide, options.saved, config.peft);
  const [none, fresh] = [{ type: 'none' }, { ...config.peft, adapter: null }];
  const targets = [
    { name: 'plain', target: await open(deep, options.base, none), wanted: await open(deep, options.merged, none) },
    { name: 'same', target: await open(deep, options.base, fresh), wanted: await open(deep, options.saved, fresh) },
  ];
  for (const { name, target, wanted } of targets) {
    const [before, expected] = [bitsOf(target), bitsOf(wanted)];
    const transfer = await WeightTransfer.create({ group: world, store, name, source: policy, target });
    transfer.run();
    const found = bitsOf(target);
    const differing = (bits) => [...expected].filter(([each, wanted]) => !bits.get(each).equals(wanted)).length;
    const counts = { parameters: expected.size, before: differing(before), after: differing(found) };
    context.emit({ type: 'moved', rank, name, ...counts });
    transfer.dispose();
    for (const model of [target, wanted]) model.dispose();
  }
  policy.dispose();
  runtime.destroyAll();
  device.close();
}

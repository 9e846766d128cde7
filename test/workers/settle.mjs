// A worker that reports which parameters are still being gathered, before and after each way to read them.
import {
  CommRuntime,
  openDevice,
  provideDistributedModel,
  setupOptimizer,
  setupGroups,
  setupRunData,
} from '../../dist/src/index.js';

export async function runWorker(context) {
  const { config: cfg, rank, worldSize } = context;
  const device = openDevice(context.device, context.localRank, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: 20 });
  const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const model = await provideDistributedModel(cfg, { pgCollection, device });
  const { optimizer } = setupOptimizer(cfg, model, { pgCollection });
  const data = await setupRunData(cfg, pgCollection);
  const { buffer } = model.stage;
  const readers = {
    'forwardBackward with hooks': () => model.forwardBackward(data.next(2), { hooks: optimizer.hooks }),
    'forwardBackward without': () => model.forwardBackward(data.next(2)),
    evaluate: () => model.evaluate(data.next(2)),
    parameters: () => model.parameters(),
  };
  for (const [reader, read] of Object.entries(readers)) {
    model.forwardBackward(data.next(1), { hooks: optimizer.hooks });
    optimizer.step();
    const before = [...buffer.gathering.keys()].map(({ name }) => name);
    read();
    const after = [...buffer.gathering.keys()].map(({ name }) => name);
    // Gradients that were not reduced belong to no update.
    optimizer.reduceGradients();
    if (rank === 0) context.emit({ type: 'gathering', reader, before, after });
  }
  data.close();
  model.dispose();
  runtime.destroyAll();
  device.close();
}

// A worker that builds one model after another over the same ranks, on one runtime.
import {
  CommRuntime,
  openDevice,
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
  train,
} from '../../dist/src/index.js';

const LAYOUTS = [
  { tp: 2, destroy: false },
  { tp: 2, destroy: true },
  { tp: 1, destroy: false },
  { tp: 1, destroy: true },
];

export async function runWorker(context) {
  const { config, rank, worldSize, store } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  for (const { tp, destroy } of LAYOUTS) {
    const model = { ...config.model, tensor_model_parallel_size: tp, sequence_parallel: tp > 1 };
    const cfg = { ...config, model };
    const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
    runtime.watch();
    const built = await provideDistributedModel(cfg, { pgCollection, device });
    const { optimizer, scheduler } = setupOptimizer(cfg, built, { pgCollection });
    const data = await setupRunData(cfg, pgCollection);
    const onStep = ({ step, loss }) => context.emit({ type: 'trained', tp, step, loss });
    await train({ cfg, model: built, optimizer, scheduler, data, pgCollection, onStep });
    data.close();
    built.dispose();
    if (destroy) runtime.destroyAll();
  }
  runtime.destroyAll();
  device.close();
}

// What the workers here begin and end with: groups, model, optimizer and data, made as a program would make them.
import {
  CommRuntime,
  openDevice,
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
} from '../../dist/src/index.js';

/** @param prepare sees the device before anything uses it */
export async function setUp(context, prepare = () => undefined) {
  const { config: cfg, rank, worldSize, store } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  prepare(device);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  const { layout, pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const model = await provideDistributedModel(cfg, { pgCollection, device });
  const { optimizer } = setupOptimizer(cfg, model, { pgCollection });
  const data = await setupRunData(cfg, pgCollection);
  const close = () => {
    data.close();
    model.dispose();
    runtime.destroyAll();
    device.close();
  };
  return { device, layout, pgCollection, model, optimizer, data, close };
}

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
export function openRuntime({ device: kind, deviceIndex, threads, rank, store }, prepare = () => undefined) {
  const device = openDevice(kind, deviceIndex, threads);
  prepare(device);
  return { device, runtime: new CommRuntime({ rank, device, store, timeoutSeconds: 60 }) };
}

/** A model over all ranks, in groups of its own. */
export async function build(cfg, { device, runtime, worldSize }) {
  const { layout, pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const model = await provideDistributedModel(cfg, { pgCollection, device });
  const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection });
  const data = await setupRunData(cfg, pgCollection);
  return { layout, pgCollection, model, optimizer, scheduler, data };
}

export async function setUp(context, prepare) {
  const { device, runtime } = openRuntime(context, prepare);
  const built = await build(context.config, { device, runtime, worldSize: context.worldSize });
  const close = () => {
    built.data.close();
    built.model.dispose();
    runtime.destroyAll();
    device.close();
  };
  return { device, ...built, close };
}

// What the workers here begin and end with: groups, model, optimizer and data, made as a program would make them.
import {
  CommRuntime,
  openDevice,
  openRun,
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
} from '../../dist/src/index.js';

export function openRuntime({ device: kind, deviceIndex, threads, rank, store }) {
  const device = openDevice(kind, deviceIndex, threads);
  return { device, runtime: new CommRuntime({ rank, device, store, timeoutSeconds: 60 }) };
}

/** A model over all ranks, in groups of its own. @param options of provideDistributedModel */
export async function build(cfg, { device, runtime, worldSize }, options = {}) {
  const { layout, pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const model = await provideDistributedModel(cfg, { pgCollection, device, ...options });
  const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection });
  const data = await setupRunData(cfg, pgCollection);
  return { layout, pgCollection, model, optimizer, scheduler, data };
}

/**
 * A run without checkpoints.
 * @param prepare sees the device before anything uses it
 * @param options of openRun
 */
export function setUp(context, prepare = () => undefined, options = {}) {
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  prepare(device);
  return openRun(context, { device, checkpoints: false, ...options });
}

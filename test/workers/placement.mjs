// A worker that changes one rank's copy of a replicated parameter and asks for the check.
import { CommRuntime, PlacementCheck, openDevice, provideDistributedModel, setupGroups } from '../../dist/src/index.js';

export async function runWorker(context) {
  const { config: cfg, rank, worldSize } = context;
  const device = openDevice(context.device, context.localRank, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: 20 });
  const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const model = await provideDistributedModel(cfg, { pgCollection, device });
  const check = new PlacementCheck(model, pgCollection);
  check.check(0);
  context.emit({ type: 'alike', rank });
  const { bucket, rank: victim } = cfg.logger.log_dir === null ? {} : JSON.parse(cfg.logger.log_dir);
  if (rank === victim) {
    const { params } = model.stage.buffer.buckets.find(({ name }) => name === bucket);
    device.write(params.slice(3, 1), Float32Array.of(1.25));
  }
  check.check(1);
}

// A worker that changes one rank's copy of a replicated parameter and asks for the check.
import { PlacementCheck } from '../../dist/src/index.js';
import { setUp } from './set-up.mjs';

export async function runWorker(context) {
  const { rank } = context;
  const { device, pgCollection, model } = await setUp(context);
  const check = new PlacementCheck(model, pgCollection);
  check.check(0);
  context.emit({ type: 'alike', rank });
  const { bucket, rank: victim } = JSON.parse(context.config.logger.log_dir);
  if (rank === victim) {
    const { params } = model.stage.buffer.buckets.find(({ name }) => name === bucket);
    device.write(params.slice(3, 1), Float32Array.of(1.25));
  }
  check.check(1);
}

// A worker that trains a part of a model, in several calls, and says which parameters changed.
import { setUp } from './set-up.mjs';

export async function runWorker(context) {
  const { rank, options, emit } = context;
  const trainable = options.trainable === null ? {} : { trainable: new RegExp(options.trainable) };
  const run = await setUp(context, undefined, { checkpoints: options.checkpoints, ...trainable });
  const { model } = run;
  const before = model.parameters();
  const losses = [];
  for (let until = 1; until <= options.updates; until++) losses.push((await run.train({ until })).last?.loss);
  const changed = model.parameters().map(({ name, values }, i) => ({
    name,
    changed: values.some((value, j) => value !== before[i].values[j]),
  }));
  const { buckets } = model.stage.buffer;
  const { gradients, optimizer } = model.stage.plan.byRegion();
  const frozen = buckets.filter((bucket) => !bucket.trainable).map(({ name }) => name);
  emit({ type: 'trained', rank, losses, changed, frozen, gradients, optimizer, step: run.step });
  await run.close();
}

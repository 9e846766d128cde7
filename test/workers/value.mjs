// A worker that trains a value model, or another where `head` says so, on returns that are a function of the tokens; with `beside`, a
// value model beside the run's, saved in that folder and resumed from it.
import {
  crossEntropy,
  openRun,
  provideDistributedModel,
  RunCheckpoints,
  setupOptimizer,
} from '../../dist/src/index.js';

export async function runWorker(context) {
  const { head, beside } = context.options;
  const run = await openRun(context, { head, ...(head === 'value' ? {} : { loss: crossEntropy() }) });
  const second = beside === undefined ? null : await openSecond(context, run, beside);
  const { model } = second ?? run;
  const scores = model.parameters().filter(({ name }) => name === 'score.weight');
  for (const { values } of model.speaks ? scores : []) context.emit({ type: 'began', values: [...values] });
  const next = (step) =>
    run.data.next(step).map((batch) => ({ ...batch, returns: Float32Array.from(batch.tokens, (id) => (id % 7) / 7) }));
  const act = async (step) => {
    second.model.forwardBackward(next(step), { hooks: second.optimizer.hooks });
    second.optimizer.step();
    await second.checkpoints.onUpdate(step);
  };
  await run.train({ data: { next }, every: second === null ? [] : [{ every: 1, act }] });
  await second?.checkpoints.finish(run.step);
  second?.model.dispose();
  await run.close();
}

async function openSecond({ store, log, config }, { layout, device, pgCollection, data }, folder) {
  const cfg = { ...config, checkpoint: { ...config.checkpoint, save: folder, load: folder } };
  const common = { cfg, layout, device, store, log, groups: pgCollection };
  const checkpoints = await RunCheckpoints.open({ ...common, head: 'value' });
  const checkpoint = checkpoints.resume;
  const model = await provideDistributedModel(cfg, { pgCollection, device, head: 'value', checkpoint });
  const { optimizer } = setupOptimizer(cfg, model, { pgCollection });
  await checkpoints.begin(optimizer.state, data);
  return { checkpoints, model, optimizer };
}

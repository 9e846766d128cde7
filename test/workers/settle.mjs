// A worker that reports which parameters are still being gathered, before and after each way to read them.
import { setUp } from './set-up.mjs';

export async function runWorker(context) {
  const run = await setUp(context);
  const { model, optimizer, data } = run;
  const { buckets } = model.stage.buffer;
  const gathering = () => buckets.filter((bucket) => bucket.isGathering).map(({ name }) => name);
  const readers = {
    'forwardBackward with hooks': () => model.forwardBackward(data.next(2), { hooks: optimizer.hooks }),
    'forwardBackward without': () => model.forwardBackward(data.next(2)),
    evaluate: () => model.evaluate(data.next(2)),
    parameters: () => model.parameters(),
  };
  for (const [reader, read] of Object.entries(readers)) {
    model.forwardBackward(data.next(1), { hooks: optimizer.hooks });
    optimizer.step();
    const before = gathering();
    read();
    const after = gathering();
    // Gradients that were not reduced belong to no update.
    optimizer.reduceGradients();
    if (context.rank === 0) context.emit({ type: 'gathering', reader, before, after });
  }
  await run.close();
}

// A worker that trains a value model, or another where `head` says so, on returns that are a function of the tokens.
import { crossEntropy, openRun } from '../../dist/src/index.js';

export async function runWorker(context) {
  const { head } = context.options;
  const run = await openRun(context, { head, ...(head === 'value' ? {} : { loss: crossEntropy() }) });
  const scores = run.model.parameters().filter(({ name }) => name === 'score.weight');
  for (const { values } of run.model.speaks ? scores : []) context.emit({ type: 'began', values: [...values] });
  const next = (step) =>
    run.data.next(step).map((batch) => ({ ...batch, returns: Float32Array.from(batch.tokens, (id) => (id % 7) / 7) }));
  await run.train({ data: { next } });
  await run.close();
}
